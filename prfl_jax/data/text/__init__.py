"""Texts: characters or words as tokens, windows of them, and the data sets that are made of texts."""
