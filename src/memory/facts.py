"""Finds what a message tells about its writer, for automatic keeping: only what they clearly meant to tell.

Word lists and patterns, no grammar, English only. benchmarks/memory_recall.py measures how well they work.
"""

import re
from dataclasses import dataclass
from typing import Literal

from src.memory.secrets import looks_secret
from src.memory.words import words_of

RememberMode = Literal["ask", "auto", "off"]
MAX_CHARACTERS = 1000  # a longer message is probably pasted text
_MAX_WORDS = 50  # distinct words in a sentence

_SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])\s+|\n+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_APOSTROPHE = re.compile("[\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}]")

# Words in front of a statement. The first pattern marks a correction of an earlier statement, the second does not.
_CORRECTION = re.compile(r"(?:oh\b,?\s*)?(?:actually|correction|no|sorry|wait|not any ?more)\b[\s,:;-]+", re.IGNORECASE)
_LEAD_IN = re.compile(r"(?:and|also|but|by the way|btw|fyi|hi|hello|hey|oh|so|well|you know)\b[\s,:;-]+", re.IGNORECASE)
_NOW = re.compile(r"\b(?:now|no longer|these days)\b", re.IGNORECASE)

_PLEASE = r"(?:please\s+|can you\s+|could you\s+)?"
_REMEMBER_THAT = re.compile(
    rf"{_PLEASE}(?:remember|note|do not forget|don't forget|keep in mind|bear in mind)\b"
    r"(?:\s*[,:]\s*|\s+)(?:that\b\s*)?(?=\S)",
    re.IGNORECASE,
)
_REMEMBER_TO = re.compile(rf"{_PLEASE}(?:remember|do not forget|don't forget)\s+to\s+\w+", re.IGNORECASE)
_ONLY_POINTS = {"it", "me", "that", "them", "this", "these", "those", "what", "i", "you", "said", "all", "for", "the"}

# A sentence with one of these is about the conversation, or a request, or is not meant literally.
_NOT_TOLD = re.compile(
    r"\b(?:you|your|yours|answers?|bet|doubt|guess|hope|if|imagine|joking|kidding|know|let's|mean|meant|pretend"
    r"|questions?|said|say|suppose|thanks?|think|thought|understand|wish|wonder(?:ing)?|would|'d)\b",
    re.IGNORECASE,
)
_I = r"i(?:\s+(?:also|always|mostly|never|now|no longer|often|only|really|still|usually|currently|just))?\s+"
_WE = r"(?:we|my \w+ and i)(?:\s+(?:also|always|never|now|no longer|often|still|both|all))?\s+"
_COUNT = r"(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\d+|no|some|several|many|my|our|the)"
_NO_POINTER = r"(?!(?:it|that|this|these|those|them|him|her|so|not|one|ones|both|none|all)\b)"
_LASTING = (  # what people do for long, or did once and tell
    "adopted|bake|bought|broke|build|built|collect|cook|cycle|drank|drink|drive|eat|enjoy|fly|grew|grow|hate|hike"
    "|keep|left|like|live|lived|lost|love|married|met|moved|named|own|paint|play|prefer|quit|rent|ride|run|sell|sing"
    "|sleep|smoke|speak|spend|stopped|studied|study|swim|take|taught|teach|train|use|volunteer|wake|walk|wear|work"
    "|worked"
)
_STATES = (
    r"(?:allergic|colou?r-?blind|deaf|diabetic|divorced|engaged|\w+ intolerant|left-handed|married|pregnant|retired"
    r"|right-handed|single|vegan|vegetarian|widowed|\w+ (?:years old|metres tall|cm tall))\b"
    r"|(?:an?|afraid|born|called|from|named|scared|the|living|learning|moving|saving|studying|teaching|training|working"
    r"|writing)\s+\w"
)
_NO_STATE = r"(?!(?:an?|the) (?:bit|little|king|queen)\b)(?!the (?:same|one|best)\b)"
_NOT_POSSESSED = (
    "answer|apolog(?:y|ies)|bad|computer crash|fault|god|goodness|guess|idea|mistake|opinion|pleasure|point|problem"
    "|question|suggestion|turn|word"
)
_TOLD = (  # how a sentence begins that tells something
    rf"(?:my|our)\s+(?!(?:{_NOT_POSSESSED})\b)[\w'-]+\s+\S+\s*\S+",
    rf"(?:i'm|i am|{_I}am|{_WE}are|we're)\s+(?:not\s+)?{_NO_STATE}(?:{_STATES})",
    rf"(?:i was|we were|{_I}was)\s+(?:born|diagnosed|raised|married)\b",
    r"(?:i|we)(?:\s+have|'ve)\s+been\s+(?:an?|in|living|married|single|together|vegan|vegetarian|working|learning"
    r"|playing)\b",
    rf"(?:(?:{_I}|{_WE})(?:have|own|got)|i've got|we've got)\s+{_COUNT}\s+(?!(?:questions?|ideas?|problems?|request"
    r"|feeling|look|clue|doubts?|minute|moment|another|other|more)\b)\w+",
    rf"(?:{_I}|{_WE})(?:{_LASTING})\s+{_NO_POINTER}[\w'-]+",
    rf"(?:{_I}|{_WE})(?:get up|used to \w+)\b",
    rf"{_I}go\s+\w+ing\b|(?:{_I}|{_WE})go\s+to\s+(?:the|a|my|our)\s+\w+\s+(?:every|on|in|at)\b",
    r"i\s+(?:can't|cannot|don't|do not|never)\s+(?:stand|drink|drive|eat|hear|like|smoke|swim|wear|own|speak|ride)\b",
    rf"{_WE}(?:got married|are moving|live|moved)\b.*\w",
)


@dataclass(frozen=True)
class Statement:
    """What a message tells about its writer, or asks to remember.

    requested: the message asks to remember it. corrects: it replaces what was told before. is_secret: never keep it.
    """

    text: str
    requested: bool = False
    corrects: bool = False
    is_secret: bool = False


def find_statement(message: str) -> Statement | None:
    """What a message tells about its writer, as one statement; None if it tells nothing.

    "Hi! Remember that the rent is 940 euros. Is that much?" gives "The rent is 940 euros."
    """
    if len(message) > MAX_CHARACTERS:
        return None
    sentences = (" ".join(_CONTROL.sub(" ", sentence).split()) for sentence in _SENTENCE_END.split(message))
    found = [statement for sentence in sentences if (statement := _statement(sentence))]
    safe = [statement for statement in found if not statement.is_secret]
    if not found or not safe:
        return found[0] if found else None
    return Statement(
        " ".join(statement.text for statement in safe),
        any(statement.requested for statement in safe),
        any(statement.corrects for statement in safe),
    )


def extract_facts(message: str) -> str:
    """The text that automatic keeping saves from a message; "" for nothing."""
    statement = find_statement(message)
    return statement.text if statement and not statement.is_secret else ""


def _statement(sentence: str) -> Statement | None:
    if sentence.endswith("?") or not 2 <= len(words_of(sentence)) <= _MAX_WORDS:
        return None
    plain, corrects = _APOSTROPHE.sub("'", sentence), False
    while lead := _CORRECTION.match(plain) or _LEAD_IN.match(plain):
        corrects = corrects or bool(_CORRECTION.match(plain))
        plain = plain[lead.end() :]
    requested, text = _requested(plain)
    if not requested and (
        _NOT_TOLD.search(text) or not any(re.match(pattern, text, re.IGNORECASE) for pattern in _TOLD)
    ):
        return None
    if not text:
        return None
    text = text[:1].upper() + text[1:]
    return Statement(text, requested, corrects or bool(_NOW.search(text)), looks_secret(text))


def _requested(sentence: str) -> tuple[bool, str]:
    """(whether the sentence is a request to remember, the text to remember; "" if it only points at something)"""
    if _REMEMBER_TO.match(sentence):
        return True, sentence
    if not (request := _REMEMBER_THAT.match(sentence)):
        return False, sentence
    text = sentence[request.end() :]
    words = words_of(text)
    return True, text if len(words) > 1 and not _ONLY_POINTS.issuperset(words) else ""
