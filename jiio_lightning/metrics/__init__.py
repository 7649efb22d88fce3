"""Metrics: library metrics with the conventions that the tables need."""
