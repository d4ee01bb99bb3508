"""The entry point to the word tokenizer."""
