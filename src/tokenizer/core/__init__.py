"""What every part of the word tokenizer uses: constants, errors, the logger and the data models."""
