"""Trained heads on other languages: accuracy, official scores, calibration."""
