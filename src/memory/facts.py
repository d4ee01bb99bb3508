"""Finds the facts that a message clearly states about its writer, for automatic keeping.

Word lists and patterns, no grammar, English only. benchmarks/memory_recall.py measures how well they work.
"""

import re
from dataclasses import dataclass
from typing import Literal

from src.memory.corrections import is_denial
from src.memory.secrets import looks_secret
from src.memory.words import with_apostrophes, words_of

RememberMode = Literal["ask", "auto", "off"]
MAX_CHARACTERS = 1000  # a longer message is probably pasted text
_MAX_WORDS = 50  # distinct words in a sentence

_SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])\s+|\n+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

# Words before a statement. Those of the first pattern announce a correction.
_CORRECTION = re.compile(r"(?:oh\b,?\s*)?(?:actually|correction|no|sorry|wait|not any ?more)\b[\s,:;-]+", re.IGNORECASE)
_LEAD_IN = re.compile(r"(?:and|also|but|by the way|btw|fyi|hi|hello|hey|oh|so|well|you know)\b[\s,:;-]+", re.IGNORECASE)
# Polite words after a statement.
_CLOSING = re.compile(
    r",?\s*\b(?:(?:nice|good|great|glad|pleased|happy) to meet you|by the way|btw|you know|thanks|thank you)(?=[.!]*$)",
    re.IGNORECASE,
)
# Between two statements in one sentence: "My name is Kim and I'm vegan."
_SEVERAL = re.compile(r",?\s+(?:and|but|so)\s+(?=(?:i|my|our|we)\b)", re.IGNORECASE)
_I_OR_WE = re.compile(r"(?:i|we)\b", re.IGNORECASE)
_I_DO = re.compile(r"(?:i|we)(?:'\w+)? \w", re.IGNORECASE)
_VERB = re.compile(r"\b(?:are|has|have|is|was|were)\b|(?:ed|[^s\W]s)\s+\w|\b(?:died|left|moved)\b", re.IGNORECASE)
_NOW = re.compile(r"\b(?:again|now|no longer|these days)\b", re.IGNORECASE)

_PLEASE = r"(?:please\s+|can you\s+|could you\s+)?"
_REMEMBER_THAT = re.compile(
    rf"{_PLEASE}(?:remember|note|do not forget|don't forget|keep in mind|bear in mind)\b"
    r"(?:\s*[,:]\s*|\s+)(?:that\b\s*)?(?=\S)",
    re.IGNORECASE,
)
_REMEMBER_TO = re.compile(rf"{_PLEASE}(?:remember|do not forget|don't forget)\s+to\s+\w+", re.IGNORECASE)
_ONLY_POINTS = {"it", "me", "that", "them", "this", "these", "those", "what", "i", "you", "said", "all", "for", "the"}

# A sentence with one of these is about the conversation or this moment, or a request, or is not meant literally.
_NOT_TOLD = re.compile(
    r"\b(?:you|your|yours|answers?|asked|bet|doubt|dream(?:ed|t)|guess|heard|hope|if|imagine|joking|kidding|know|let's"
    r"|mean|meant|pretend|questions?|said|say|suppose|thanks?|think|thought|(?<=i )told|understand|whether|wish"
    r"|wonder(?:ing)?|would|'d)\b"
    r"|,\s*(?:wrote|writes|sang|says)\s+\w|(?:today|right now|at the moment)\b"
    r"|^(?:i|we) \w+(?: (?:about|for|in|of|on|to|with))? (?:it|that|this|these|those)[.!]*$",
    re.IGNORECASE,
)
_I = r"i(?:\s+(?:also|always|mostly|never|now|no longer|often|only|really|still|usually|currently|just))?\s+"
_WE = r"(?:we|my \w+ and i)(?:\s+(?:also|always|never|now|no longer|often|still|both|all))?\s+"
_COUNT = r"(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\d+|no|some|several|many|my|our|the)"
_NO_POINTER = r"(?!(?:it|that|this|these|those|them|him|her|so|not|one|ones|both|none|all)\b)"
_LASTING = (  # what people do for long, or did once and tell
    "adopted|attend|bake|became|bought|broke|build|built|coach|collect|commute|cook|cycle|drank|drink|drive|eat|enjoy"
    "|fly|gave up|graduated|grew|grow|hate|hike|keep|knit|left|like|live|lived|lost|love|married|met|moved|named|own"
    "|paint|play|practi[cs]e|prefer|quit|raise|rent|retired|ride|run|sail|sell|sing|skate|ski|sleep|smoke|speak|spend"
    "|stopped|studied|study|suffer|support|surf|swim|take|taught|teach|train|use|volunteer|wake|walk|wear|weigh|work"
    "|worked"
)
_STATES = (
    r"(?:allergic|colou?r-?blind|deaf|diabetic|divorced|engaged|\w+ intolerant|left-handed|married|pregnant|retired"
    r"|right-handed|single|vegan|vegetarian|widowed|\w+ (?:years old|metres tall|cm tall))\b"
    r"|(?:an?|afraid|born|called|from|named|scared|the|living|learning|moving|saving|studying|teaching|training|working"
    r"|writing)\s+(?!(?:an?|the|this)\s+(?:email|letter|message|poem|report|speech|story|text)\b)\w"
)
_NO_STATE = r"(?!(?:an?|the) (?:bit|little|king|queen)\b)(?!the (?:same|one|best)\b)"
_MATERIAL = (  # what a person works on here and asks about
    "app|array|class|code|column|dataset|dictionary|draft|equation|error|essay|file|function|input|list|loop|matrix"
    "|method|output|paragraph|poem|program|query|regex|row|script|sentence|string|table|task|test|text|variable|vector"
)
_NOT_POSSESSED = (
    "answer|apolog(?:y|ies)|bad|computer crash|fault|god|goodness|guess|idea|mistake|opinion|pleasure|point|problem"
    f"|question|suggestion|turn|word|(?:{_MATERIAL})s?"
)
_TOLD = (  # how a sentence begins that states a fact about its writer
    rf"(?:my|our)\s+(?!(?:{_NOT_POSSESSED})\b)[\w'-]+\s+\S+\s*\S+",
    rf"(?:i'm|i am|{_I}am|{_WE}are|we're)\s+(?:not\s+)?{_NO_STATE}(?:{_STATES})",
    rf"(?:i was|we were|{_I}was)\s+{_NO_STATE}(?:born|diagnosed|raised|married|vegan|vegetarian|an?\s+\w)",
    r"(?:i|we)(?:\s+have|'ve)\s+been\s+(?:an?|in|living|married|single|together|vegan|vegetarian|working|learning"
    r"|playing)\b",
    rf"(?:(?:{_I}|{_WE})(?:have|own|got)|i've got|we've got)\s+{_COUNT}\s+(?!(?:questions?|ideas?|problems?|request"
    rf"|feeling|look|clue|doubts?|minute|moment|another|other|more|(?:{_MATERIAL})s?)\b)\w+",
    rf"(?:{_I}|{_WE})(?:{_LASTING})\s+{_NO_POINTER}(?!(?:an?|my|the)\s+(?:{_MATERIAL})s?\b)[\w'-]+",
    rf"(?:{_I}|{_WE})(?:get up|used to \w+)\b",
    rf"(?:{_I}|{_WE})got (?:divorced|engaged|married)\b",
    r"(?:i|we)(?:\s+have|'ve)\s+(?:lived|played|studied|taught|worked)\b.*\w",
    r"(?:i|we) can (?:cook|drive|knit|play|ride|sail|sing|ski|speak|swim)\b",
    rf"{_I}do\s+\w+\s+(?:every|on|once|twice)\b",
    rf"{_I}turned (?:\d+|\w+(?:teen|ty)(?:-\w+)?)\b",
    rf"{_I}go\s+\w+ing\b|(?:{_I}|{_WE})go\s+to\s+(?:the|a|my|our)\s+\w+\s+(?:every|on|in|at)\b",
    r"i\s+(?:can't|cannot|don't|do not|never)\s+(?:stand|drink|drive|eat|hear|like|smoke|swim|wear|own|speak|ride)\b",
    rf"{_WE}(?:got married|are moving|live|moved)\b.*\w",
)
# "I'm Kim." or "I'm Kim Novak and": the capitals distinguish a name from a state such as "tired".
_INTRODUCTION = re.compile(r"(?i:i'm|i am)(?: [A-Z][\w-]+){1,3}(?=[.!,]|$| (?:and|but)\b)")


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
    if len(message) > MAX_CHARACTERS:
        return []
    sentences = (" ".join(_CONTROL.sub(" ", sentence).split()) for sentence in _SENTENCE_END.split(message))
    return [statement for sentence in sentences for statement in _statements(sentence)]


def as_statement(text: str) -> Statement:
    """A text that the user gave to be kept as it is."""
    return Statement(text, requested=True, corrects=bool(_NOW.search(text)))


def extract_facts(message: str) -> list[str]:
    """The texts that automatic keeping saves from a message to an empty memory."""
    return [each.text for each in find_statements(message) if each.stands_alone and not each.is_secret]


def _statements(sentence: str) -> list[Statement]:
    if sentence.endswith("?") or not 2 <= len(words_of(sentence)) <= _MAX_WORDS:
        return []
    core, corrects = _core(with_apostrophes(sentence))
    requested, text = _requested(core)
    parts = _parts(text)
    if len(parts) > 1:
        parts = [part for part in parts if requested or _is_sentence(part)]
    elif text and (requested or _is_told(text) or (is_denial(text) and not _NOT_TOLD.search(text))):
        parts = [text]
    else:
        return []
    return [
        Statement(
            part[:1].upper() + part[1:],
            requested,
            corrects or bool(_NOW.search(part)),
            looks_secret(text),  # of the whole: a part may be the secret, and another its name
            stands_alone=requested or _is_told(part),
        )
        for part in parts
    ]


def _parts(text: str) -> list[str]:
    """The statements in one sentence: "I'm tired and I live in Rome." has two, "My wife and I live in Rome." one."""
    parts = _SEVERAL.split(text)
    if not all(_is_sentence(part) or (_I_DO.match(part) and not _NOT_TOLD.search(text)) for part in parts):
        return [text]
    return [*(f"{part}." for part in parts[:-1]), parts[-1]]


def _core(sentence: str) -> tuple[str, bool]:
    """(the sentence without words such as "Actually," before it and politeness after it, whether it is a correction)"""
    corrects = False
    while lead := _CORRECTION.match(sentence) or _LEAD_IN.match(sentence):
        corrects = corrects or bool(_CORRECTION.match(sentence))
        sentence = sentence[lead.end() :]
    return _CLOSING.sub("", sentence), corrects


def _is_sentence(part: str) -> bool:
    """Whether a part of a sentence states a fact by itself: "my own house" does not."""
    return is_denial(part) or (_is_told(part) and bool(_I_OR_WE.match(part) or _VERB.search(part)))


def _is_told(text: str) -> bool:
    """Whether a text states a fact about its writer."""
    if _NOT_TOLD.search(text):
        return False
    return bool(_INTRODUCTION.match(text)) or any(re.match(pattern, text, re.IGNORECASE) for pattern in _TOLD)


def _requested(sentence: str) -> tuple[bool, str]:
    """(whether the sentence is a request to remember, the text to remember; "" if it only points at something)"""
    if _REMEMBER_TO.match(sentence):
        return True, sentence
    if not (request := _REMEMBER_THAT.match(sentence)):
        return False, sentence
    text = sentence[request.end() :]
    words = words_of(text)
    points = len(words) < 2 or _ONLY_POINTS.issuperset(words) or (words[0] == "the" and len(words) == 2)
    return True, "" if points else text
