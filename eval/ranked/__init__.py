"""Ranked retrieval: queries, documents, judgements."""
