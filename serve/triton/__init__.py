"""Triton's server process: started, watched, reloaded, ended."""
