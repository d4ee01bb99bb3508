"""Text and examples: get them, check them, turn them into tokens and batches."""
