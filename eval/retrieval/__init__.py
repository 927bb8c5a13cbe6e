"""Retrieval over parallel text: accuracy, probabilities, thresholds."""
