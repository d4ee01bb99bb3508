"""Which facts may answer a question: rules beyond shared words, such as whom the question is about."""

import re
from collections.abc import Sequence, Set

from src.memory.synonyms import with_synonyms
from src.memory.words import STOP_WORDS, american

FIRST_PERSON = {"i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves"}
_POSSESSIVES = {"my", "our", "mine", "ours"}
# "How do I boil an egg?" asks for advice, not about the user.
_ADVICE = re.compile(r"\b(?:should (?:i|we)|how (?:can|could|do|should) (?:i|we))\b")
# "Tell me of Rome." and "I wonder why the sky is blue."
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
_POSSESSION_WORDS = 3  # "my best friend": how many words after "my" may name what is possessed
# "my landlord is mr okafor| and |the rent is 720 pounds", but not "my brother plays chess and the piano"
_BETWEEN_CLAUSES = re.compile(
    r" (?:and|but) (?=(?:i|we) |(?:my|our|the) \w+(?: \w+)? (?:is|are|was|were|has|have|costs?) )"
)


def is_personal(question: str) -> bool:
    """Whether a question asks about the user, not about the world."""
    words = _question_words(question)
    asks_advice = _ADVICE.search(" ".join(words)) and _POSSESSIVES.isdisjoint(words)
    return not asks_advice and not FIRST_PERSON.isdisjoint(words)


def may_answer(question: str, fact: str, shared: Set[str]) -> bool:
    """Whether a fact that shares words with a question can be about the same person or thing.

    shared: the words of the question, in American spelling, that the fact contains in some form.
    """
    asked, told = _question_words(question), american(fact)
    if not is_personal(question):
        return told.split()[:1] not in (["i"], ["we"])  # "Who wrote Hamlet?" is not answered by "I saw Hamlet."
    if "family" in asked:
        return True
    first, *others = (clause.split() for clause in _BETWEEN_CLAUSES.split(told))
    clauses = [first, *(clause for clause in others if not shared.isdisjoint(clause))]
    if not any(_asks_about_owner(asked, clause) for clause in clauses):
        return False  # "Where do I live?" is not answered by "My brother lives in Turku."
    possessed = _asked_possession(asked)
    return not possessed or not shared.isdisjoint(possessed)


def _question_words(question: str) -> list[str]:
    return american(_NOT_ABOUT_ME.sub("", question)).split()


def _asks_about_owner(asked: Sequence[str], told: Sequence[str]) -> bool:
    """Whether a question asks about the person that a clause begins with; True if the clause begins with none."""
    people = [_singular(word) for word in _possessed(told[: _POSSESSION_WORDS + 1]) if _singular(word) in _PEOPLE]
    return not people or people[0] in {_singular(form) for word in asked for form in with_synonyms(_singular(word))}


def _asked_possession(asked: Sequence[str]) -> list[str]:
    """The words for what a question asks about: "brother" of "my brother's car", "food" of "my favourite food"."""
    possessed = _possessed(asked)
    possessed = [word for word in possessed if _singular(word) in _PEOPLE] or possessed
    return [word for word in possessed if word != "favorite"] or possessed


def _possessed(words: Sequence[str]) -> list[str]:
    """The words after "my" and "our", without common words."""
    found = []
    for place, word in enumerate(words, start=1):
        if word in ("my", "our"):
            found += [near for near in words[place : place + _POSSESSION_WORDS] if near not in STOP_WORDS]
    return found


def _singular(word: str) -> str:
    return word.removesuffix("s") if not word.endswith("ss") else word
