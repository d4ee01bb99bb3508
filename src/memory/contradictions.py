"""Which saved facts a message may contradict. A note names them, and nothing is deleted.

Patterns by example, no grammar, English only. They expect single spaces and ignore case.
"""

import re

from src.memory.fact_patterns import CORRECTION
from src.memory.facts import extract_facts
from src.memory.words import words_of

_OPENINGS = f"(?:{CORRECTION.pattern})"
# Not as in "I meant to ask" and "Sorry, typo."
_A_VALUE = (
    r"(?!(?:again|bye|everything|fine|good|great|hello|hi|i|in|it|late|man|mate|nice|no|not|nothing|ok|okay|please|really"
    r"|so|sorry|thanks?|that|the other|this|time|to|true|typo|very|wait|well|what|wrong|yes|you|your|\w+ing)\b)"
)
# Not as in "No, it's wonderful.", which is probably about something else.
_NAME_OR_NUMBER = rf"{_A_VALUE}(?-i:[A-Z]|\d|(?:two|three|four|five|six|seven|eight|nine|ten)\b)"

# A sentence that gives only the right value. It corrects what was said directly before it. By example:
BARE_CORRECTION = {
    "Sorry, I meant raspberries.": rf"(?:{_OPENINGS}+i mean|{_OPENINGS}*(?:i )?meant) {_A_VALUE}",
    "No, it's Momo.": rf"{_OPENINGS}+(?:it'?s|(?:it|that) (?:is|was|should be)|(?:her|his|its) name(?:'s| is))"
    rf" (?:at |in |on )?{_NAME_OR_NUMBER}",
    "No, at 8:50.": rf"{_OPENINGS}+(?:at |in |on |the )?{_NAME_OR_NUMBER}[^ ]*(?: [^ ]+)?$",
    "Oops, raspberries.": rf"(?:correction|oops|sorry)[,:] {_A_VALUE}[^ ]+$",
}

_I = r"\b(?:i|we)(?:'m|'re|'ve| am| are| have)?(?: just)?"
_MINE = r"\b(?:my|our) ([\w'-]+(?: [\w'-]+)?)"
_HAS_ENDED = r"(?:died|passed away|left me|(?:flew|ran) away(?! from)|is dead|is gone(?=[.!]*$))(?!\w)"

# What has ended or changed, and a question about it. The facts that answer it may no longer be true. By example:
OUTDATED = {
    "My dog Pepper died last week.": (rf"{_MINE}(?: has)? {_HAS_ENDED}", r"my \1"),
    "Pepper died last week.": (
        rf"\b((?-i:[A-Z])[\w-]+)(?: has)? {_HAS_ENDED}",
        r"my \1",
    ),
    "My flight was cancelled.": (
        r"\b(?:my|our|the) ([\w-]+) (?:is|was|were|got|has been) "
        r"(?:cancell?ed|moved to (?:next|\d|\w+day\b)|over(?=[.!]*$)|postponed|sold|stolen)",
        r"my \1",
    ),
    "I sold the Fiat.": (
        rf"{_I} (?:cancell?ed|gave (?:away|up)|lost|quit|sold) (?:my|our|the) ([\w-]+)"
        r"(?=[.,!]|$| (?:and|because|in|last|on|this|to|yesterday)\b)",
        r"my \1",
    ),
    "Tom and I broke up.": (
        rf"{_I} (?:got )?(?:broke up|divorced|separated|split up)\b(?! (?:an?|from|in half|into|my|our|some|the)\b)",
        "my partner",
    ),
    "I got married.": (rf"{_I} (?:a (?:boy|girl)friend|got engaged|got married)\b", "Am I single?"),
    "I moved to Vienna.": (
        r"^(?!.*\b(?:ago|as an?|in (?:\w+ )?\d+|since|when)\b).*"
        rf"{_I} moved (?:(?:away|back|house|out)(?=[.,!]|$| (?:again|in|last|this|yesterday)\b)"
        r"|to (?:(?-i:[A-Z])|a new (?:apartment|city|flat|house|place|town)\b))",
        "Where do I live?",
    ),
    "I lost my job.": (
        rf"{_I} (?:(?:(?:found|got|started|took) )?a new job|(?:been|got|was|were) (?:fired|laid off)"
        r"|found a job(?! (?:ad|for|offer)\b)|lost my job|quit (?:last|my job)|resigned|retired)\b",
        "What is my job?",
    ),
    "I graduated last year.": (
        rf"{_I} (?:graduated|finished (?:my )?(?:degree|school|studies))\b(?! at\b)",
        "What do I study?",
    ),
}
# "I studied in Porto.", "My dog is dead."
_PAST = re.compile(
    r"(?:i|we|(?:my|our) [\w'-]+)(?: \w+)? (?:died|had|is (?:dead|gone|over)|left|lost|moved (?:away|back|house|out)"
    r"|quit|sold|studied|used to|was|went|were|worked)\b",
    re.IGNORECASE,
)


def is_correction_of(sentence: str, fact: str) -> bool:
    """Whether a sentence corrects the fact stated directly before it: by another value alone, or in a whole sentence.

    "Sorry, I meant raspberries." and "Sorry, I like raspberries." correct "I like strawberries."
    """
    if any(re.match(pattern, sentence, re.IGNORECASE) for pattern in BARE_CORRECTION.values()):
        return True
    return bool(CORRECTION.match(sentence)) and any(_has_another_value(new, fact) for new in extract_facts(sentence))


def _has_another_value(new: str, old: str) -> bool:
    """Whether the new fact begins as the old one and has all its words but one: "I have two sons." """
    new_words, old_words = words_of(new), words_of(old)
    is_addition = not {"also", "too", "well"}.isdisjoint(new_words)
    return new_words[:2] == old_words[:2] and len({*old_words} - {*new_words}) == 1 and not is_addition


def outdated_questions(sentence: str) -> list[str]:
    """Questions whose answers may have changed: "Pepper died last week." gives "my Pepper"."""
    found = [(re.search(pattern, sentence, re.IGNORECASE), question) for pattern, question in OUTDATED.values()]
    return [match.expand(question) for match, question in found if match]


def is_still_true(fact: str, sentence: str) -> bool:
    """Whether a fact is in the past tense, or names the place of a move: "I live in Linz." and "I moved to Linz." """
    moved = re.search(r"\bmoved to .*?([A-Z][\w-]+)", sentence)
    return bool(_PAST.match(fact)) or (moved is not None and moved[1].lower() in words_of(fact))
