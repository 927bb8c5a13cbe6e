"""Starting Triton, and measuring it."""
