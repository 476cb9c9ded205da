"""Accuracy with intervals, paired tests, pass@k, and rates by difficulty and by attempt."""
