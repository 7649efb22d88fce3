"""The paper's tables and figures as runs and a report: ``jiio reproduce table1 --budget cpu``."""
