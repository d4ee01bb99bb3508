"""What a statement claims: that something is so, is not so, or is no longer so. "I don't smoke" denies "I smoke"."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from src.memory.spelling import with_apostrophes
from src.memory.words import american

# A subject has one of each at a time: "I live in Rome." is corrected, "I have a dog." is added to.
SINGLE_VALUE_VERBS = {
    "called", "is", "are", "was", "were", "inhabit", "lives", "live", "works", "work", "costs", "cost",
    "drives", "drive", "starts", "start", "leaves", "leave", "expires",
}  # fmt: skip

# Several wordings become one, applied in this order to lower-case text with all apostrophes (see spelling.py).
_WRITTEN_OUT = (
    (re.compile(r"\bcan(?:not|'t)\b"), "can not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'m\b"), " am"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"\bha(?:s|ve) been\b"), "is"),  # "I have been vegan"
    (re.compile(r"\bhas\b"), "have"),
    (re.compile(r"\bhave (not |no longer )?got\b"), r"\1have"),  # "I have not got a cat"
    (re.compile(r"\bhave no (?!longer\b)"), "not have "),  # "I have no cat"
)
_LOVE = re.compile(r"\b(?:enjoy|love)\b", re.IGNORECASE)
_HATE = re.compile(r"\b(?:can(?:not|'t| not) stand|dislike|hate)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:never|no longer|not)\b|n't\b", re.IGNORECASE)
# "I'm not vegan", "my sister doesn't ski", "we no longer smoke", "I stopped smoking"
_DENIAL = re.compile(
    r"(?:my \w+ and )?(?P<subject>i|we|(?:my|our)(?: [\w'-]+){1,3}?)"
    r"(?: (?:am|are|is|do|does|have|can))?(?: (?:also|just|really))?"
    r" (?:(?P<never>not|never)|no longer|(?:stopped|quit|gave up|given up)(?= \w+ing\b)) (?P<denied>.+)"
)
_NO_LONGER = re.compile(r"\b(?:any ?more|any longer|no longer|stopped|quit|gave up|given up)\b")
_SEVERAL = re.compile(r"\b(?:and|or|but)\b|,")
# Words that a denial may have and the denied fact not, or the other way round.
_UNIMPORTANT = {
    "a", "again", "am", "an", "any", "anymore", "are", "as", "at", "be", "been", "called", "can", "days", "do", "does",
    "for", "in", "is", "longer", "more", "my", "named", "now", "of", "on", "our", "the", "these", "to", "with",
}  # fmt: skip
# "work out" is another verb than "work".
_PARTICLES = {"away", "back", "down", "off", "out", "over", "up"}


@dataclass(frozen=True)
class Claim:
    """What a statement says of its subject.

    subject: "i", or "my sister". stems: the stems of the important words, the verb or state first. is_denial: it says
    "not". is_final: it says "no longer". has_several: it may state several things, joined by "and".
    """

    subject: str
    stems: tuple[str, ...]
    is_denial: bool
    is_final: bool
    has_several: bool

    def contradicts(self, old: "Claim") -> bool:
        """Whether this claim makes an old one untrue.

        "I don't smoke" contradicts "I smoke". "I no longer drive" contradicts "I drive a Fiat", which says more.
        """
        if self.is_denial == old.is_denial or self.subject != old.subject or not self.stems or not old.stems:
            return False
        if set(self.stems) == set(old.stems):
            return True
        denies_whole_verb = self.stems[0] == old.stems[0] and set(self.stems) < set(old.stems)
        return self.is_final and not old.has_several and denies_whole_verb


def denial(statement: str) -> Claim | None:
    """The claim of a statement that something is not so, or no longer; None for any other statement."""
    plain = _written_out(statement)
    match = _DENIAL.match(plain)
    if not match or re.search(r" (?:am|are|is|was|were)\b", match["subject"]):  # "my car is old, not new"
        return None
    return Claim(
        _owner(match["subject"]),
        _stems(match["denied"].split()),
        is_denial=True,
        is_final=not match["never"] or bool(_NO_LONGER.search(plain)),
        has_several=bool(_SEVERAL.search(statement)),
    )


def assertion(statement: str) -> Claim:
    """The claim of a statement without a negation."""
    words = re.sub(r"^my \w+ and (?=i )", "", _written_out(statement)).split()
    subject_words = 1  # "i"
    if words[:1] in (["my"], ["our"]):  # "my best friend", up to the verb "lives"
        verbs = SINGLE_VALUE_VERBS | {"have"}
        subject_words = next((place for place, word in enumerate(words) if word in verbs), 2)
    return Claim(
        _owner(" ".join(words[:subject_words])),
        _stems(words[subject_words:]),
        is_denial=False,
        is_final=False,
        has_several=bool(_SEVERAL.search(statement)),
    )


def with_like(statement: str) -> str:
    """The statement with "like" for "love", and "do not like" for "hate".

    Unchanged if it denies them: who does not hate jazz may still not like it.
    """
    if _NEGATION.search(_HATE.sub("", statement)):
        return statement
    return _LOVE.sub("like", _HATE.sub("do not like", statement))


def is_denial(statement: str) -> bool:
    """Whether a statement says that something is not so, or no longer."""
    return denial(statement) is not None


def _written_out(text: str) -> str:
    """The text in lower case, without contractions and punctuation: "I haven't got a cat." is "i not have a cat"."""
    text = with_apostrophes(text).lower()
    for pattern, replacement in _WRITTEN_OUT:
        text = pattern.sub(replacement, text)
    return american(text)


def _owner(subject: str) -> str:
    """One form for "I" and "we", and for "my" and "our"."""
    return "i" if subject == "we" else re.sub(r"^our\b", "my", subject)


def _stems(words: Sequence[str]) -> tuple[str, ...]:
    """The stems of the important words, the verb or state first."""
    important = [word for word in words if word not in _UNIMPORTANT]
    stems = list(map(_stem, important))
    if len(important) > 1 and important[1] in _PARTICLES:
        stems[:2] = [" ".join(stems[:2])]
    return tuple(dict.fromkeys(stems))


def _stem(word: str) -> str:
    """One spelling for the forms of a word: "live" and "living" are "liv", "swim" and "swimming" are "swim"."""
    stem = re.sub(r"(?<=\w\w)(?:ing|ies|es|ed|s)$", "", word)
    return re.sub(r"(?<=\w\w)[ey]$|(\w)(?=\1$)", "", stem)
