"""What the parts of the word tokenizer have to agree on."""

# Reserved tokens have fixed ids, so that code can insert them whatever the vocabulary is. Neither can be had by writing
# it: a literal <UNK> in a text is one more unknown word, and a literal <ENDOFTEXT> is split at its angle brackets.
UNKNOWN, END_OF_TEXT = "<UNK>", "<ENDOFTEXT>"
RESERVED = (UNKNOWN, END_OF_TEXT)
UNKNOWN_ID, END_OF_TEXT_ID = 0, 1

# A word begins with a letter or a digit of any script. Then there may also be combining marks (vowel signs of Hindi,
# accents without a composed form) and the two joiners that Persian and Indian scripts use within words.
# Both are written as the inside of a character class.
LETTER = r"\p{L}\p{N}"
MARK = r"\p{M}\u200c\u200d"

LINE_BREAK = "\n"

# Longer runs of letters are data (a key, a picture written as text), not words; no vocabulary takes them in.
LONGEST_TOKEN_CHARS = 1000

# Any change to what cleaning or splitting makes of a text needs a new number: ids of old models would mean other words.
VERSION = 1
