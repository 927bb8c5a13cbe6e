"""What all stages share. `xt.core` imports no other room, and its serving path imports neither torch nor transformers."""

__version__ = "0.1.0"
