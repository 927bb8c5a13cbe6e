"""The command line: one file a command group; load, call, render, no logic."""
