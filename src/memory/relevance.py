"""Which facts may answer a question: rules beyond shared words, such as whom the question is about."""

import re
from collections.abc import Set

from src.memory.words import STOP_WORDS, american, told_as

# A question with one of these words asks about the user, not about the world.
PERSONAL = {"i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves"}
_OWN = ("my", "our")
# "How do I boil an egg?" asks for advice, not about the user.
_ADVICE = re.compile(r"\b(?:should (?:i|we)|how (?:can|could|do|should) (?:i|we))\b")
_NOT_ABOUT_ME = re.compile(
    r"\b(?:give|remind|show|teach|tell)\s+(?:me|us)\b|\bi\s+(?:guess|suppose|think|wonder)\b", re.IGNORECASE
)
_PEOPLE = {
    "aunt", "baby", "boss", "boyfriend", "brother", "child", "children", "colleague", "cousin", "dad", "daughter",
    "doctor", "family", "father", "flatmate", "friend", "girlfriend", "granddaughter", "grandfather", "grandmother",
    "grandson", "husband", "kid", "landlord", "manager", "mom", "mother", "neighbor", "nephew", "niece", "parent",
    "partner", "roommate", "sibling", "sister", "son", "spouse", "stepfather", "stepmother", "teacher", "team",
    "uncle", "wife",
}  # fmt: skip
_OWNER_WORDS = 3  # "my best friend": how many words after "my" may name the owner


def is_personal(question: str) -> bool:
    """Whether a question asks about the user."""
    words = american(_NOT_ABOUT_ME.sub("", question)).split()
    asks_advice = _ADVICE.search(" ".join(words)) and not set(words) & {"my", "our", "mine", "ours"}
    return not asks_advice and not PERSONAL.isdisjoint(words)


def may_answer(question: str, fact: str, shared: Set[str]) -> bool:
    """Whether a fact that shares words with a question can be about the same person or thing.

    shared: the words of the question, in American spelling, that the fact contains in some form.
    """
    asked, told = american(_NOT_ABOUT_ME.sub("", question)).split(), american(fact).split()
    if not is_personal(question):
        return told[:1] not in (["i"], ["we"])  # "Who wrote Hamlet?" is not answered by "I saw Hamlet."
    owner = next((word for word in _after_own(told[: _OWNER_WORDS + 1]) if _singular(word) in _PEOPLE), None)
    asked_for = {_singular(form) for word in asked for form in told_as(_singular(word))}
    if owner and "family" not in asked and _singular(owner) not in asked_for:
        return False  # "Where do I live?" is not answered by "My brother lives in Turku."
    possessed = _after_own(asked)
    possessed = [word for word in possessed if _singular(word) in _PEOPLE] or possessed
    possessed = [word for word in possessed if word != "favorite"] or possessed  # "my favourite food" is about food
    return not possessed or "family" in possessed or not shared.isdisjoint(possessed)


def _after_own(words: list[str]) -> list[str]:
    """The words that say whose or which: those after "my" and "our", without common words."""
    found = []
    for place, word in enumerate(words):
        if word in _OWN:
            found += [near for near in words[place + 1 : place + 1 + _OWNER_WORDS] if near not in STOP_WORDS]
    return found


def _singular(word: str) -> str:
    return word.removesuffix("s") if not word.endswith("ss") else word
