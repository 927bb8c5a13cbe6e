"""Applying calibrations, with numpy alone: what servers and exported models load."""
