"""Which of a person's sentences tell something about their world, and what in a question points at such a thing.

Word lists and no grammar: they know English only. benchmarks/memory_recall.py measures what they get right.
"""

import re

MOST_CHARACTERS = 1000  # of a message that is looked at: a longer one is a pasted text
_MOST_WORDS = 50  # different ones, of a sentence

# Words that say who a question is about: whoever uses one asks about their own world, not about the world.
PERSONAL = {"i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves"}

# Words that no fact is found by, pieces of "don't" and "we've" among them.
STOP_WORDS = {
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "aren", "as", "ask", "at", "be",
    "been", "before", "being", "between", "but", "by", "can", "could", "d", "did", "didn", "do", "does", "doesn",
    "doing", "don", "done", "down", "each", "every", "for", "from", "get", "give", "go", "going", "got", "had", "has",
    "have", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is", "isn", "it",
    "its", "just", "know", "last", "ll", "m", "made", "make", "may", "me", "might", "mine", "must", "my", "myself",
    "no", "nor", "not", "now", "next", "of", "off", "on", "or", "our", "ours", "ourselves", "out", "over", "please",
    "re", "s", "said", "say", "shall", "she", "should", "so", "some", "such", "t", "tell", "than", "that", "the",
    "their", "theirs", "them", "then", "there", "these", "they", "this", "those", "to", "too", "under", "up", "us",
    "ve", "very", "was", "wasn", "we", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will",
    "with", "would", "you", "your", "yours",
}  # fmt: skip

# A sentence that begins so is a question or an order.
_ASKS = {
    "add", "answer", "are", "can", "change", "compare", "continue", "correct", "could", "create", "describe", "did",
    "do", "does", "explain", "find", "fix", "forget", "generate", "give", "have", "help", "how", "improve", "is", "let",
    "list", "make", "may", "please", "put", "read", "repeat", "rewrite", "say", "shall", "shorten", "should", "show",
    "stop", "suggest", "summarise", "summarize", "talk", "tell", "translate", "try", "use", "was", "were", "what",
    "when", "where", "which", "who", "whom", "whose", "why", "will", "would", "write",
}  # fmt: skip

# A sentence with one of these is about the talk itself: what was said, meant or understood.
_ABOUT_THE_TALK = {
    "agree", "answer", "answers", "asked", "disagree", "follow", "guess", "hope", "mean", "meant", "mistake",
    "ok", "okay", "question", "questions", "said", "sentence", "suppose", "thank", "thanks", "think", "thought",
    "understand", "understood", "wonder", "you", "your", "yours",
}  # fmt: skip

_SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])\s+|\n+")
_ASKED_FOR = re.compile(
    r"(?:please\s+)?(?:remember|note|don['\N{RIGHT SINGLE QUOTATION MARK}]t forget)\b[\s,:]*(?:that\b\s*)?",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, each once, in their order; digits count as letters."""
    return list(dict.fromkeys(_WORD.findall(text.lower())))


def extract_facts(text: str) -> str:
    """The sentences of a message that tell something about the person's world; "" where there are none.

    "Hi! Remember that the rent is 940 euros. Is that much?" gives "The rent is 940 euros."
    """
    if len(text) > MOST_CHARACTERS:
        return ""
    sentences = (" ".join(_CONTROL.sub(" ", sentence).split()) for sentence in _SENTENCE_END.split(text))
    return " ".join(filter(None, map(_fact, sentences)))


def worth_keeping(text: str) -> bool:
    """Whether a message states something about the person's world, and is not only a question or an order."""
    return extract_facts(text) != ""


def _fact(sentence: str) -> str:
    """The sentence as it is to be kept; "" for one that is not."""
    words = words_of(sentence)
    if sentence.endswith("?") or not 2 <= len(words) <= _MOST_WORDS:
        return ""
    asked_for = _ASKED_FOR.match(sentence)
    if asked_for:
        fact = sentence[asked_for.end() :]
        return fact[:1].upper() + fact[1:] if len(words_of(fact)) > 1 else ""
    asks = words[0] in _ASKS or not _ABOUT_THE_TALK.isdisjoint(words)
    return "" if asks or PERSONAL.isdisjoint(words) else sentence
