"""What every part of the word tokenizer knows: names, errors, the log and the values that are handed around."""
