"""The HTTP gateway before Triton, and its page."""
