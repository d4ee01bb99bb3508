"""From a file to tokens: read, clean, split."""
