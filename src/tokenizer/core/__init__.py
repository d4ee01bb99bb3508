"""Shared by all parts of the word tokenizer: constants, errors, the logger and the data models."""
