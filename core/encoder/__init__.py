"""The encoder: its specification, where its weights are, and its engines in this process."""
