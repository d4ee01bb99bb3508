"""All of the word tokenizer behind one object."""
