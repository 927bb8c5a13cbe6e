"""Heads on the shared encoder: their inputs, networks, answers and scores."""
