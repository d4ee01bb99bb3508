"""Words of a text as the search compares them: one spelling for British and American English."""

import re

_WORD = re.compile(r"[^\W_]+")

# Words too common to search by. Includes the pieces of contractions such as "don't" and "we've".
STOP_WORDS = {
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "aren", "as", "ask", "at", "be",
    "been", "before", "being", "between", "but", "by", "can", "could", "d", "did", "didn", "do", "does", "doesn",
    "doing", "don", "done", "down", "each", "every", "for", "from", "get", "give", "go", "going", "got", "had", "has",
    "have", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is", "isn", "it",
    "its", "just", "kind", "know", "last", "ll", "long", "m", "made", "make", "many", "may", "me", "might", "mine",
    "much", "must", "my", "myself", "no", "nor", "not", "now", "next", "of", "off", "on", "or", "our", "ours",
    "ourselves", "out", "over", "please", "re", "s", "said", "say", "shall", "she", "should", "so", "some", "such",
    "t", "tell", "than", "that", "the", "their", "theirs", "them", "then", "there", "these", "they", "this", "those",
    "to", "too", "under", "up", "us", "ve", "very", "was", "wasn", "we", "were", "what", "when", "where", "which",
    "who", "whom", "whose", "why", "will", "with", "would", "you", "your", "yours",
}  # fmt: skip

# British endings, and the American ones that the search uses. Facts and questions are both changed, so a rule that hits
# another word ("wise" -> "wize") does no harm.
_AMERICAN = (
    (r"(?<=[a-z]{2})our(?=s?$|ed$|ing$|ite|able|ful|hood|ly$|y$)", "or"),  # colour, neighbour, favourite
    (r"(?<=[a-z]{2})is(?=e[ds]?$|ing$|ation|er)", "iz"),  # organise
    (r"(?<=[a-z]{2})ys(?=e[ds]?$|ing$)", "yz"),  # analyse
    (r"(?<=[a-z]{2})tre(?=s?$)", "ter"),  # theatre
    (r"(?<=[a-z]{2}[aeiou])ll(?=ed$|ing$|ers?$)", "l"),  # travelled
    (r"(?<=[a-z]{2})ogue(?=s?$)", "og"),  # catalogue
    (r"(?<=[a-z]{2})ence(?=s?$)", "ense"),  # licence
    (r"^programme(?=s?$)", "program"),
    (r"^gre(?=y)", "gra"),
    (r"^(?:mum|mam)(?=m?y?$)", "mom"),
    (r"^tyre(?=s?$)", "tire"),
    (r"^grand(?:ma|mom|mum)$", "grandmother"),
    (r"^grand(?:pa|dad)$", "grandfather"),
)


def words_of(text: str) -> list[str]:
    """The distinct words of a text in lower case, in order of first appearance; digits count as letters."""
    return list(dict.fromkeys(_WORD.findall(text.lower())))


def american(text: str) -> str:
    """The words of a text in lower case and in American spelling, for the index and for questions."""
    return " ".join(map(_american_word, _WORD.findall(text.lower())))


def _american_word(word: str) -> str:
    for british, ending in _AMERICAN:
        word = re.sub(british, ending, word)
    return word
