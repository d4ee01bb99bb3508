"""Constants that the parts of the word tokenizer share."""

# Reserved tokens have fixed ids, so code can insert them whatever the vocabulary is. Spelling one in a text has no
# special meaning: a literal <UNK> is an unknown word, and a literal <ENDOFTEXT> is split at its angle brackets.
UNKNOWN, END_OF_TEXT = "<UNK>", "<ENDOFTEXT>"
RESERVED = (UNKNOWN, END_OF_TEXT)
UNKNOWN_ID, END_OF_TEXT_ID = 0, 1

# A word starts with a letter or a digit of any script. After it, combining marks (vowel signs of Hindi, accents without
# a composed form) and the two joiners of Persian and Indian scripts may follow. Both are for use inside [ ] in a regex.
LETTER = r"\p{L}\p{N}"
MARK = r"\p{M}\u200c\u200d"

LINE_BREAK = "\n"

# Longer tokens are data (a key, an image as text), not words. No vocabulary includes them.
LONGEST_TOKEN_CHARS = 1000

# Increase this if cleaning or splitting changes: an old model's text would get other ids.
VERSION = 1
