"""Which facts a new statement makes untrue: it corrects them, denies them, or gives a new value, such as a new age.

Word lists and patterns, no grammar, English only. When in doubt, both statements are kept.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from src.memory.words import american, normalised, with_apostrophes

_NAME_IS = re.compile(r"'s name is\b|\b(?:is|are) (?:called|named)\b")
_UNSTRESSED = {"now", "also", "really", "actually", "still", "currently", "m", "re", "the"}
_VERBS = {  # of which a subject has one at a time: "I live in Rome." is corrected, "I have a dog." is added to
    "called", "is", "are", "was", "were", "lives", "live", "works", "work", "costs", "cost", "drives", "drive",
    "starts", "start", "leaves", "leave", "expires",
}  # fmt: skip
_AGE = re.compile(r"(?:i|we) (?:(?:am |are )?\w+(?: \w+)? years? old\b|turned (?:\d+|\w+(?:teen|ty))\b)")
# These have one value at a time, so a second value replaces the first even without "now".
_ONE_VALUE = re.compile(r"years old$|\bfavorite\b|^my (?:first |full |last |middle )?(?:age|birthday|name|surname) is$")

_EXPANSIONS = (  # applied in this order to lower-case text
    (re.compile(r"\bcan(?:not|'t)\b"), "can not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'m\b"), " am"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"\bha(?:s|ve) been\b"), "is"),
    (re.compile(r"\bhas\b"), "have"),
    (re.compile(r"\bhave (not |no longer )?got\b"), r"\1have"),
    (re.compile(r"\bhave no (?!longer\b)"), "not have "),
)
# "I'm not", "my sister doesn't", "we no longer", "I stopped ...ing"
_NEGATIVE = re.compile(
    r"(?:my \w+ and )?(?P<subject>i|we|(?:my|our)(?: [\w'-]+){1,3}?)"
    r"(?: (?:am|are|is|do|does|have|can))?(?: (?:also|just|really))?"
    r" (?:(?P<never>not|never)|no longer|(?:stopped|quit|gave up|given up)(?= \w+ing\b)) (?P<rest>.+)"
)
_NO_LONGER = re.compile(r"\b(?:any ?more|any longer|no longer|stopped|quit|gave up|given up)\b")
_SEVERAL = re.compile(r"\b(?:and|or|but)\b|,")
_LITTLE = {  # words that a denial may have and the denied fact not, or the other way round
    "a", "again", "am", "an", "any", "anymore", "are", "as", "at", "be", "been", "called", "can", "days", "do", "does",
    "for", "in", "is", "longer", "more", "my", "named", "now", "of", "on", "our", "the", "these", "to", "with",
}  # fmt: skip


@dataclass(frozen=True)
class _Claim:
    """What a statement says of its subject: the stems of its words, the verb or state first. is_final: "no longer"."""

    subject: str
    stems: tuple[str, ...]
    is_negative: bool
    is_final: bool


def replaces(new: str, old: str, *, corrects: bool) -> bool:
    """Whether a new statement makes an old one untrue. corrects: the new one announces a correction."""
    if normalised(new) == normalised(old):
        return False
    if (denial := _denial(new)) or _denial(old):
        return _contradict(denial or _claim(new), _denial(old) or _claim(old), has_several=bool(_SEVERAL.search(old)))
    subject = subject_of(new)
    return (corrects or bool(_ONE_VALUE.search(subject))) and subject == subject_of(old) != ""


def is_denial(statement: str) -> bool:
    """Whether a statement says that something is not so, or no longer."""
    return _denial(statement) is not None


def subject_of(fact: str) -> str:
    """What a fact is about: its words up to the verb, such as "my cat called"; "" if it has no verb of the list.

    "My cat's name is Miso." and "Our cat is called Miso." are about the same.
    """
    words = [word for word in american(_NAME_IS.sub(" called", fact)).split() if word not in _UNSTRESSED]
    if _AGE.match(" ".join(words)):
        return "i years old"
    for place, word in enumerate(words):
        if word in _VERBS:
            return " ".join("my" if word == "our" else word for word in words[: place + 1])
    return ""


def _contradict(new: _Claim, old: _Claim, *, has_several: bool) -> bool:
    """Whether one claim denies the other. With "no longer", the old one may have more words: "I drive a Fiat."

    has_several: the old fact may state several things, of which some can stay true.
    """
    if new.is_negative == old.is_negative or new.subject != old.subject or not new.stems or not old.stems:
        return False
    if set(new.stems) == set(old.stems):
        return True
    return new.is_final and not has_several and new.stems[0] == old.stems[0] and set(new.stems) < set(old.stems)


def _denial(text: str) -> _Claim | None:
    plain = _expanded(text)
    match = _NEGATIVE.match(plain)
    if not match or re.search(r" (?:am|are|is|was|were)\b", match["subject"]):
        return None
    is_final = not match["never"] or bool(_NO_LONGER.search(plain))
    return _Claim(_owner(match["subject"]), _stems(match["rest"].split()), True, is_final)


def _claim(text: str) -> _Claim:
    """A statement without a negation. Its subject: "i", or "my" with the words before "is" or a verb."""
    plain = re.sub(r"^my \w+ and (?=i )", "", _expanded(text))
    words = plain.split()
    if words[:1] not in (["my"], ["our"]):
        return _Claim(_owner("".join(words[:1])), _stems(words[1:]), False, False)
    end = next((place for place, word in enumerate(words) if word in _VERBS or word == "have"), 2)
    return _Claim(_owner(" ".join(words[:end])), _stems(words[end:]), False, False)


def _expanded(text: str) -> str:
    """The text in lower case, without contractions and punctuation."""
    text = with_apostrophes(text).lower()
    for pattern, replacement in _EXPANSIONS:
        text = pattern.sub(replacement, text)
    return american(text)


def _owner(subject: str) -> str:
    return {"we": "i"}.get(subject, re.sub(r"^our\b", "my", subject))


def _stems(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_stem(word) for word in words if word not in _LITTLE))


def _stem(word: str) -> str:
    """One spelling for the forms of a word: "live", "lives" and "living" are "liv"."""
    stem = re.sub(r"(?<=\w\w)(?:ing|ies|es|ed|s)$", "", word)
    return re.sub(r"(?<=\w\w)[ey]$|(\w)(?=\1$)", "", stem)
