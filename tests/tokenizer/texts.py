"""Texts that cleaning, splitting or joining could get wrong."""

from hypothesis import strategies as st

_QUOTES = ["'", '"', "\u2018", "\u2019", "\u201c", "\u201d", "'\"", ' "', '" ', "--'", "don't", "'tis"]
_DASHES = ["-", "--", "---", "/", "//", "\u2013", "\u2014", "_", "__", "_x_"]
_MARKS = [*".,;:!?%()[]{}$&*#<>=@\xa3\xab\xbb\u2026", "...", "1,000.50", "3:30", "### "]
_SPACES = [*" \n\t\r\v\f\x1c\x85\xa0\u2028\u3000\u200b\ufeff\xad", "\r\n", "\n\n", "  "]
_LETTERS = [*"aZ09\xe9\xbd\u212a\u0958\u4e2d", "\ufb01", "e\u0301", "a\u0338", "क्षि", "\u05e9\u05b8"]
_OTHERS = [*"\0\x1b\u0301\u200c\u200d\u0600\ufe0f\u20e3\ud83d\ude00\udfff", "❤\ufe0f", "👍🏽", "=\u0338"]
_RESERVED = ["<UNK>", "<ENDOFTEXT>", "<UNK", "UNK>"]

PIECES = st.sampled_from([*_QUOTES, *_DASHES, *_MARKS, *_SPACES, *_LETTERS, *_OTHERS, *_RESERVED])
TEXTS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=12)
