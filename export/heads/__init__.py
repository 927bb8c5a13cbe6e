"""The export of trained heads: the graph with the encoder inside, its parity and its temperature."""
