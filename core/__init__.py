"""What all stages share. `xt.core` imports no other package; its serving path needs no torch and no transformers."""

__version__ = "0.1.0"
