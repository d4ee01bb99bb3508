"""The interfaces that tokenizers and their parts share."""
