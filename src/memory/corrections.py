"""Which facts a new statement makes untrue: it corrects them, denies them, or gives a new value, such as a new age.

Word lists and patterns, no grammar, English only. When in doubt, both statements are kept.
"""

import re

from src.memory.claims import SINGLE_VALUE_VERBS, assertion, denial, with_like
from src.memory.words import american, normalised

_SAME_MEANING = (  # applied in this order to lower-case text in American spelling
    # "my cat s name is miso"
    (re.compile(r" s name is\b|\b(?:is|are) (?:called|named)\b"), " called"),
    # "i live near graz", but not "i live alone"
    (re.compile(r"\b(?:lives?|(?:am|m|are|re|is) living) (?:at|in|near|on|outside)\b"), "inhabit"),
    # "i moved to vienna last month", but not "i moved to vienna in 2015": another move may have followed
    (
        re.compile(
            r"^(i|we|(?:my|our) \w+) (?:just )?moved to (?!(?:an?|another|my|our|the) )\w+(?: \w+)?"
            r"(?: (?:again|now|recently|(?:last|this) (?:week|month|year)))?$"
        ),
        r"\1 inhabit",
    ),
)
# "I really live in Graz now": words that do not change what a statement is about.
_UNSTRESSED = {"now", "also", "really", "actually", "still", "currently", "m", "re", "the"}
# "I'm 34 years old.", "I turned forty"
_AGE = re.compile(r"(?:i|we) (?:(?:am |are )?\w+(?: \w+)? years? old\b|turned (?:\d+|\w+(?:teen|ty))\b)")
# Subjects whose second value replaces the first even without "now": "I'm 35 years old.", "My favorite color is blue."
_SINGLE_VALUE = re.compile(
    r"years old$|\bfavorite\b|^my (?:first |full |last |middle )?(?:age|birthday|name|surname) is$"
)
# "I live near the river with my husband Koen and our two cats": after a move, most of it is still true.
_SAYS_MORE = re.compile(r"\b(?:and|but|with)\b", re.IGNORECASE)


def replaces(new: str, old: str, *, corrects: bool) -> bool:
    """Whether a new statement makes an old one untrue. corrects: the new one announces a correction."""
    if normalised(new) == normalised(old):
        return False
    if _contradicts(new, old) or _contradicts(with_like(new), with_like(old)):
        return True
    if denial(new) or denial(old) or _SAYS_MORE.search(old):
        return False
    subject = subject_of(new)
    return (corrects or bool(_SINGLE_VALUE.search(subject))) and subject == subject_of(old) != ""


def _contradicts(new: str, old: str) -> bool:
    return (denial(new) or assertion(new)).contradicts(denial(old) or assertion(old))


def subject_of(fact: str) -> str:
    """What a fact is about: its words up to the verb, such as "my cat called"; "" if it has no verb of the list.

    "My cat's name is Miso." and "Our cat is called Miso." are about the same, and so are "I live in Graz." and "I moved
    to Graz."
    """
    plain = american(fact)
    for pattern, same in _SAME_MEANING:
        plain = pattern.sub(same, plain)
    words = [word for word in plain.split() if word not in _UNSTRESSED]
    if _AGE.match(" ".join(words)):
        return "i years old"
    for place, word in enumerate(words):
        if word in SINGLE_VALUE_VERBS:
            return " ".join("my" if word == "our" else word for word in words[: place + 1])
    return ""
