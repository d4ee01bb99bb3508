"""Load and check texts and examples, and turn them into tokens and batches."""
