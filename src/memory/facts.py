"""Finds the facts that a message clearly states about its writer, for automatic keeping.

Word lists and patterns (fact_patterns.py), no grammar, English only. benchmarks/memory_recall.py measures how well they
work.
"""

import re
from dataclasses import dataclass

from src.memory import fact_patterns as patterns
from src.memory.claims import is_denial
from src.memory.secrets import looks_secret
from src.memory.spelling import with_apostrophes
from src.memory.words import words_of

MAX_CHARACTERS = 500  # a longer message is probably pasted text
_MAX_WORDS = 50  # distinct words in a sentence


@dataclass(frozen=True)
class Statement:
    """One fact that a message states about its writer, or asks to remember.

    requested: the message asks to remember it. corrects: it announces a correction. is_secret: it must not be kept.
    stands_alone: if False, it is kept only if it replaces a fact, as "I don't have a cat any more." may.
    """

    text: str
    requested: bool = False
    corrects: bool = False
    is_secret: bool = False
    stands_alone: bool = True


def find_statements(message: str) -> list[Statement]:
    """The facts that a message states about its writer, or asks to remember.

    "Hi! Remember that the rent is 940 euros. Is that much?" gives "The rent is 940 euros."
    """
    return [statement for sentence in sentences_of(message) for statement in _statements(sentence)]


def texts_to_forget(message: str) -> list[str]:
    """What a message asks to forget: "Forget that I live in Rome." gives "I live in Rome." """
    sentences = [_without_courtesies(sentence)[0] for sentence in sentences_of(message)]
    requests = [(sentence, patterns.FORGET.match(sentence)) for sentence in sentences]
    return [sentence[request.end() :] for sentence, request in requests if request]


def as_statement(text: str) -> Statement:
    """A text that the user gave to be kept as it is."""
    return Statement(text, requested=True, corrects=bool(patterns.NOW.search(text)))


def extract_facts(message: str) -> list[str]:
    """The texts that automatic keeping saves from a message to an empty memory."""
    return [each.text for each in find_statements(message) if each.stands_alone and not each.is_secret]


def sentences_of(message: str) -> list[str]:
    """The sentences of a message that are no questions, with single spaces and all apostrophes; none of a long text."""
    if len(message) > MAX_CHARACTERS:
        return []
    parts = (patterns.CONTROL_CHARACTERS.sub(" ", part) for part in patterns.SENTENCE_END.split(message))
    sentences = (with_apostrophes(" ".join(part.split())) for part in parts)
    return [each for each in sentences if not each.endswith("?") and 2 <= len(words_of(each)) <= _MAX_WORDS]


def _statements(sentence: str) -> list[Statement]:
    text, corrects = _without_courtesies(sentence)
    text, requested = _without_request(text)
    is_secret = looks_secret(text)  # the whole: one clause may be the secret, and another its name
    found = []
    for clause in filter(None, _clauses(text)):
        stands_alone = requested or _is_fact(clause)
        if stands_alone or (is_denial(clause) and not _is_no_fact(clause)):
            corrects_here = corrects or bool(patterns.NOW.search(clause))
            found.append(Statement(clause[:1].upper() + clause[1:], requested, corrects_here, is_secret, stands_alone))
    return found


def _without_courtesies(sentence: str) -> tuple[str, bool]:
    """(the sentence without "By the way," before it and "thanks" after it, whether it begins with "Actually,")"""
    corrects = False
    while opening := patterns.CORRECTION.match(sentence) or patterns.OPENING.match(sentence):
        corrects = corrects or bool(patterns.CORRECTION.match(sentence))
        sentence = sentence[opening.end() :]
    return patterns.CLOSING.sub("", sentence), corrects


def _without_request(sentence: str) -> tuple[str, bool]:
    """(the text to remember, whether the sentence asks to remember it); "" if it only points, as "Remember this." """
    if patterns.REMEMBER_TO.match(sentence):
        return sentence, True
    if not (request := patterns.REMEMBER_THAT.match(sentence)):
        return sentence, False
    text = sentence[request.end() :]
    words = words_of(text)
    only_points = len(words) < 2 or patterns.POINTING_WORDS.issuperset(words) or (words[0] == "the" and len(words) == 2)
    return "" if only_points else text, True


def _clauses(text: str) -> list[str]:
    """The statements in one sentence: "I'm tired and I live in Rome." has two, "My wife and I live in Rome." one."""
    clauses = patterns.BETWEEN_CLAUSES.split(text)
    may_have_remarks = not _is_no_fact(text)  # "I'm tired"; but "I asked if ... and I live in Rome." is one
    for clause in clauses:
        is_remark = may_have_remarks and patterns.CLAUSE_OF_I_OR_WE.match(clause)
        if not (_is_complete(clause) or is_remark):
            return [text]
    return [*(f"{clause}." for clause in clauses[:-1]), clauses[-1]]


def _is_complete(clause: str) -> bool:
    """Whether a clause states a fact by itself: "my own house" does not."""
    has_verb = patterns.CLAUSE_OF_I_OR_WE.match(clause) or patterns.VERB.search(clause)
    return is_denial(clause) or (_is_fact(clause) and bool(has_verb))


def _is_fact(text: str) -> bool:
    """Whether a text states a fact about its writer."""
    if _is_no_fact(text):
        return False
    begins_as_fact = any(re.match(pattern, text, re.IGNORECASE) for pattern in patterns.FACT.values())
    return begins_as_fact or bool(patterns.INTRODUCTION.match(text))


def _is_no_fact(text: str) -> bool:
    """Whether a text is about the chat or this moment, not meant literally, or said by someone else."""
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns.NO_FACT.values())
