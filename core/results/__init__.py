"""Results of an evaluation: their types, and the one reader and writer of report folders."""
