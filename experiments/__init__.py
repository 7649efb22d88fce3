"""The laboratory: baselines, the papers' tables and figures, benchmarks. It imports the package, never the reverse."""
