"""Which saved facts a message may contradict. It only makes the chat ask: a fact is not deleted on a guess.

Patterns by example, no grammar, English only. They expect single spaces and ignore case.
"""

import re

from src.memory.fact_patterns import CORRECTION
from src.memory.words import words_of

_OPENINGS = f"(?:{CORRECTION.pattern})"
# "No, it's fine.", "I meant to ask"
_A_VALUE = (
    r"(?!(?:again|all|fine|good|great|i|it|late|nice|not|nothing|ok|okay|so|that|this|time|to|true|very|what|\w+ing)\b)"
)

# A sentence that gives only the right value. It corrects what was said directly before it. By example:
BARE_CORRECTION = {
    "Sorry, I meant raspberries.": rf"{_OPENINGS}*(?:i mean|(?:i )?meant) {_A_VALUE}",
    "No, it's Momo.": rf"{_OPENINGS}+(?:it'?s|(?:it|that) (?:is|was|should be)|(?:her|his|its) name is) {_A_VALUE}",
    "No, at 8:50.": rf"{_OPENINGS}+(?:at |in |on |the )?{_A_VALUE}(?-i:[A-Z]|\d|two\b|three\b|four\b)[^ ]*(?: [^ ]+)?$",
    "Oops, raspberries.": rf"(?:correction|oops|sorry)[,:] {_A_VALUE}[^ ]+$",
}

_WHAT = r"(?:my |our |the )?([\w'-]+(?: [\w'-]+)?)"
_I = r"\b(?:i|we)(?:'m|'re|'ve| am| are| have)?(?: just)?"

# What has ended or changed, and a question about it. The facts that answer it may no longer be true. By example:
OUTDATED = {
    "Pepper died last week.": (
        rf"{_WHAT}(?: has)? (?:died|passed away|left me|(?:flew|ran|went) away|is dead|is gone)\b",
        r"my \1",
    ),
    "My flight was cancelled.": (
        rf"{_WHAT} (?:is|was|were|got|has been) (?:cancell?ed|moved|over|postponed|sold|stolen)\b",
        r"my \1",
    ),
    "I sold the Fiat.": (rf"{_I} (?:cancell?ed|gave (?:away|up)|lost|quit|sold) (?:my|our|the) ([\w'-]+)", r"my \1"),
    "Tom and I broke up.": (rf"{_I} (?:got )?(?:broke up|divorced|separated|split up)\b", "my partner"),
    "I got married.": (rf"{_I} (?:a (?:boy|girl)friend|got engaged|got married)\b", "Am I single?"),
    "I moved to Vienna.": (rf"{_I} moved (?:away|back|out|to (?!the\b))(?!.* (?:in \d|ago\b))", "Where do I live?"),
    "I lost my job.": (
        rf"{_I} (?:(?:\w+ )?a new job|(?:got )?fired|found a job|lost my job|quit (?:last|my job)|retired)\b",
        "What is my job?",
    ),
    "I graduated last year.": (rf"{_I} (?:graduated|finished (?:my )?(?:degree|school|studies))\b", "What do I study?"),
}


def is_correction_of(sentence: str, fact: str) -> bool:
    """Whether a sentence corrects the fact stated directly before it, by a value alone or by one that begins alike."""
    if any(re.match(pattern, sentence, re.IGNORECASE) for pattern in BARE_CORRECTION.values()):
        return True
    rest = re.sub(f"^{_OPENINGS}+", "", sentence, flags=re.IGNORECASE)
    return rest != sentence and words_of(rest)[:2] == words_of(fact)[:2]


def outdated_questions(sentence: str) -> list[str]:
    """Questions whose answers may have changed: "Pepper died last week." gives "my Pepper"."""
    found = [(re.search(pattern, sentence, re.IGNORECASE), question) for pattern, question in OUTDATED.values()]
    return [match.expand(question) for match, question in found if match]
