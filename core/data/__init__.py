"""Tasks and their data: where examples are, how files are read, what is checked."""
