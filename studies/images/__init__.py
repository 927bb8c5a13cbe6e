"""Image-text sets: one out of emoji, and retrieval of captions by images."""
