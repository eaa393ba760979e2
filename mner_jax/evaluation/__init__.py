"""Evaluation: scores, significance, retrieval, the report."""
