"""Extracts facts about the user from their messages, and splits text into words for the search.

It uses word lists and no grammar, and works for English only. benchmarks/memory_recall.py measures how well it works.
"""

import re

MAX_CHARACTERS = 1000  # a longer message is probably pasted text
_MAX_WORDS = 50  # distinct words in a sentence

# A question with one of these words asks about the user, not about the world.
PERSONAL = {"i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves"}

# Words too common to search by. Includes the pieces of contractions such as "don't" and "we've".
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

# A sentence that starts with one of these is a question or a request.
_REQUEST_STARTS = {
    "add", "answer", "are", "can", "change", "compare", "continue", "correct", "could", "create", "describe", "did",
    "do", "does", "explain", "find", "fix", "forget", "generate", "give", "have", "help", "how", "improve", "is", "let",
    "list", "make", "may", "please", "put", "read", "repeat", "rewrite", "say", "shall", "shorten", "should", "show",
    "stop", "suggest", "summarise", "summarize", "talk", "tell", "translate", "try", "use", "was", "were", "what",
    "when", "where", "which", "who", "whom", "whose", "why", "will", "would", "write",
}  # fmt: skip

# A sentence with one of these is about the conversation itself: who said, meant or understood something.
_CONVERSATION_WORDS = {
    "agree", "answer", "answers", "asked", "disagree", "follow", "guess", "hope", "mean", "meant", "mistake",
    "ok", "okay", "question", "questions", "said", "sentence", "suppose", "thank", "thanks", "think", "thought",
    "understand", "understood", "wonder", "you", "your", "yours",
}  # fmt: skip

_SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])\s+|\n+")
_REMEMBER_THAT = re.compile(
    r"(?:please\s+)?(?:remember|note|don['\N{RIGHT SINGLE QUOTATION MARK}]t forget)\b[\s,:]*(?:that\b\s*)?",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def words_of(text: str) -> list[str]:
    """The distinct words of a text in lower case, in order of first appearance; digits count as letters."""
    return list(dict.fromkeys(_WORD.findall(text.lower())))


def extract_facts(text: str) -> str:
    """The sentences of a message that state something about the user; "" if there are none.

    "Hi! Remember that the rent is 940 euros. Is that much?" gives "The rent is 940 euros."
    """
    if len(text) > MAX_CHARACTERS:
        return ""
    sentences = (" ".join(_CONTROL.sub(" ", sentence).split()) for sentence in _SENTENCE_END.split(text))
    return " ".join(filter(None, map(_fact, sentences)))


def _fact(sentence: str) -> str:
    """The sentence, without "remember that"; "" if it states no fact about the user."""
    words = words_of(sentence)
    if sentence.endswith("?") or not 2 <= len(words) <= _MAX_WORDS:
        return ""
    remember_that = _REMEMBER_THAT.match(sentence)
    if remember_that:
        fact = sentence[remember_that.end() :]
        return fact[:1].upper() + fact[1:] if len(words_of(fact)) > 1 else ""
    is_request = words[0] in _REQUEST_STARTS
    about_conversation = not _CONVERSATION_WORDS.isdisjoint(words)
    return "" if is_request or about_conversation or PERSONAL.isdisjoint(words) else sentence
