"""Calibration: from scores to probabilities, how they are fitted, and how good they are."""
