"""Folders and files as xt writes them: whole or not at all, with a hashed manifest."""
