"""The word tokenizer behind one object."""
