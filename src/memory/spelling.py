"""One spelling for words that people spell in several ways: "dont" and "don't", "colour" and "color".

This restores what a writer left out. claims.py goes further: it writes "don't" out as "do not", to find the "not".
"""

import re

_APOSTROPHE = re.compile("[\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}]")
# "im", "weve", "dont"
_NO_APOSTROPHE = re.compile(
    r"\b(?:(i)(m|ve)|(we)(ve)|(are|ca|do|does|did|have|has|is|was|were|wo)n(t))\b", re.IGNORECASE
)

# British endings, and the American ones that the search uses. Facts and questions are both changed, so a rule that hits
# another word ("wise" -> "wize") does no harm.
_AMERICAN_ENDINGS = (
    (re.compile(r"(?<=[a-z]{2})our(?=s?$|ed$|ing$|ite|able|ful|hood|ly$|y$)"), "or"),  # colour, neighbour, favourite
    (re.compile(r"(?<=[a-z]{2})is(?=e[ds]?$|ing$|ation|er)"), "iz"),  # organise
    (re.compile(r"(?<=[a-z]{2})ys(?=e[ds]?$|ing$)"), "yz"),  # analyse
    (re.compile(r"(?<=[a-z]{2})tre(?=s?$)"), "ter"),  # theatre
    (re.compile(r"(?<=[a-z]{2}[aeiou])ll(?=ed$|ing$|ers?$)"), "l"),  # travelled
    (re.compile(r"(?<=[a-z]{2})ogue(?=s?$)"), "og"),  # catalogue
    (re.compile(r"(?<=[a-z]{2})ence(?=s?$)"), "ense"),  # licence
    (re.compile(r"^programme(?=s?$)"), "program"),
    (re.compile(r"^gre(?=y)"), "gra"),
    (re.compile(r"^(?:mum|mam)(?=m?y?$)"), "mom"),
    (re.compile(r"^tyre(?=s?$)"), "tire"),
    (re.compile(r"^grand(?:ma|mom|mum)$"), "grandmother"),
    (re.compile(r"^grand(?:pa|dad)$"), "grandfather"),
)


def with_apostrophes(text: str) -> str:
    """The text with the apostrophes that people leave out: "im" becomes "I'm", and "dont" becomes "don't"."""
    return _NO_APOSTROPHE.sub(_restored, _APOSTROPHE.sub("'", text))


def american_word(word: str) -> str:
    """A lower-case word in American spelling."""
    for british, american in _AMERICAN_ENDINGS:
        word = british.sub(american, word)
    return word


def _restored(match: re.Match[str]) -> str:
    start, end = (group for group in match.groups() if group)
    if end.lower() == "t":
        return f"{start}n't"
    return f"{'I' if start == 'i' else start}'{end}"
