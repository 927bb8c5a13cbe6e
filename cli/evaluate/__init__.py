"""`xt eval`."""
