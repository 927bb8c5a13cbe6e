"""Readers of task data: rows of files, published layouts, examples of each format, and what own files hold."""
