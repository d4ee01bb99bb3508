"""Words of a text as the search compares them: one spelling for British and American English."""

import re
from collections.abc import Iterable

# A vowel sign of Hindi and others is a "mark", which \w leaves out. Chinese and others have no spaces between words.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0980-\u109f\u1780-\u17d3"
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[^\W_](?:[^\W_]|[{_MARKS}])*")
_RUN = re.compile(rf"[{_UNSPACED}]+|[^{_UNSPACED}]+")

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
    "to", "too", "under", "up", "us", "ve", "very", "was", "wasn", "we", "were", "what", "whats", "when", "where",
    "wheres", "which", "who", "whom", "whos", "whose", "why", "will", "with", "would", "you", "your", "yours",
}  # fmt: skip

# British endings, and the American ones that the search uses. Facts and questions are both changed, so a rule that hits
# another word ("wise" -> "wize") does no harm.
_AMERICAN = (
    (re.compile(r"(?<=[a-z]{2})our(?=s?$|ed$|ing$|ite|able|ful|hood|ly$|y$)"), "or"),  # colour, neighbour, favourite
    (re.compile(r"(?<=[a-z]{2})is(?=e[ds]?$|ing$|ation|er)"), "iz"),  # organise
    (re.compile(r"(?<=[a-z]{2})ys(?=e[ds]?$|ing$)"), "yz"),  # analyse
    (re.compile(r"(?<=[a-z]{2})tre(?=s?$)"), "ter"),  # theatre
    (re.compile(r"(?<=[a-z]{2}[aeiou])ll(?=ed$|ing$|ers?$)"), "l"),  # travelled
    (re.compile(r"(?<=[a-z]{2})ogue(?=s?$)"), "og"),  # catalogue
    (re.compile(r"(?<=[a-z]{2})ence(?=s?$)"), "ense"),  # licence
    (re.compile(r"^programme(?=s?$)"), "program"),
    (re.compile(r"^gre(?=y)"), "gra"),
    (re.compile(r"^(?:mum|mam)(?=m?y?$)"), "mom"),
    (re.compile(r"^tyre(?=s?$)"), "tire"),
    (re.compile(r"^grand(?:ma|mom|mum)$"), "grandmother"),
    (re.compile(r"^grand(?:pa|dad)$"), "grandfather"),
)

_APOSTROPHE = re.compile("[\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}]")
_CONTRACTION = re.compile(r"\b(?:(i)(m|ve)|(we)(ve)|(are|ca|do|does|did|have|has|is|was|were|wo)n(t))\b", re.IGNORECASE)


def with_apostrophes(text: str) -> str:
    """The text with the apostrophes that people leave out: "im" becomes "I'm", and "dont" becomes "don't"."""
    return _CONTRACTION.sub(_contraction, _APOSTROPHE.sub("'", text))


def _contraction(match: re.Match[str]) -> str:
    start, end = (group for group in match.groups() if group)
    if end.lower() == "t":
        return f"{start}n't"
    return f"{'I' if start == 'i' else start}'{end}"


def normalised(text: str) -> str:
    """The text by which two statements are the same: up to case, spacing and the full stop."""
    return " ".join(text.casefold().split()).rstrip(".!")


def contains_any(text: str, parts: Iterable[str]) -> bool:
    """Whether a text contains one of the parts, up to case, spacing and the full stop."""
    plain = normalised(text)
    return any(normalised(part) in plain for part in parts)


def words_of(text: str) -> list[str]:
    """The distinct words of a text in lower case, in order of first appearance; digits count as letters."""
    return list(dict.fromkeys(_WORD.findall(text.lower())))


def american(text: str) -> str:
    """The words of a text in lower case and in American spelling."""
    return " ".join(map(_american_word, _WORD.findall(text.lower())))


def search_terms(text: str) -> str:
    """What the index holds of a text: its words, or its pairs of characters in a script without spaces."""
    runs = [run for word in american(text).split() for run in _RUN.findall(word)]
    return " ".join(term for run in runs for term in _terms(run))


def _terms(run: str) -> list[str]:
    if len(run) < 3 or not re.match(f"[{_UNSPACED}]", run):
        return [run]
    return [run[place : place + 2] for place in range(len(run) - 1)]


def _american_word(word: str) -> str:
    for british, ending in _AMERICAN:
        word = british.sub(ending, word)
    return word


# Words of questions, and other words by which a fact can answer them: "What is my job?", "I work as a vet."
# In American spelling; the index finds the other forms of each word, and phrases in quotes.
_I_AM_A = ('"i m a"', '"i m an"', '"i am a"', '"i am an"')
_TOLD_AS = {
    "afraid": ("fear", "scared"),
    "age": ("birthday", "born", "old", "turned"),
    "allergies": ("allergic",),
    "allergy": ("allergic",),
    "apartment": ("flat", "home", "live"),
    "birthday": ("born",),
    "born": ("birthday",),
    "brother": ("sibling",),
    "car": ("drive", "vehicle"),
    "child": ("son", "daughter", "kid"),
    "children": ("son", "daughter", "kid"),
    "city": ("live", "moved", "town"),
    "club": ("support", "team"),
    "country": ("live", "moved"),
    "diet": ("vegan", "vegetarian", "eat"),
    "dislike": ("hate", "stand"),
    "eat": ("allergic", "vegan", "vegetarian", "intolerant"),
    "employer": ("work", "job"),
    "favorite": ("prefer", "support"),
    "fear": ("afraid", "scared"),
    "flat": ("apartment", "home", "live"),
    "food": ("dish", "eat", "meal"),
    "hate": ("dislike", "stand"),
    "height": ("tall",),
    "hobbies": ("collect", "enjoy", "hobby", "play"),
    "hobby": ("collect", "enjoy", "play"),
    "home": ("flat", "house", "live"),
    "hometown": ("born", "from", "grew"),
    "instrument": ("play",),
    "job": ("profession", "work", *_I_AM_A),
    "kid": ("child", "son", "daughter"),
    "language": ("speak",),
    "like": ("favorite", "love", "enjoy"),
    "live": ("moved", "rent"),
    "major": ("study", "studied"),
    "meal": ("dish", "food"),
    "occupation": ("job", "work", *_I_AM_A),
    "old": ("birthday", "born", "turned"),
    "parent": ("mother", "father"),
    "partner": ("husband", "wife", "spouse"),
    "pet": ("cat", "dog", "hamster", "horse", "parrot", "rabbit"),
    "profession": ("job", "work", *_I_AM_A),
    "salary": ("earn",),
    "scared": ("afraid", "fear"),
    "sibling": ("brother", "sister"),
    "spouse": ("husband", "wife", "partner"),
    "sport": ("cycle", "play", "run", "ski", "swim"),
    "study": ("degree", "graduated"),
    "team": ("support", "club"),
    "town": ("city", "live", "moved"),
    "university": ("study", "studied", "student"),
    "vehicle": ("car", "drive"),
    "wake": ('"get up"',),
    "weight": ("weigh",),
    "work": ("job", "profession"),
}
_ASKED_AS = (  # phrases of questions
    (re.compile(r"\bget up\b"), "wake"),
    (re.compile(r"\b(?:come|am i|m) from\b"), "hometown"),
    (re.compile(r"\bdo for (?:a|my) living\b|\bearn my living\b"), "work"),
    (re.compile(r"\b(?:do not|don t|not|can t|cannot) (?:i )?(?:like|stand)\b|\bdon t i (?:like|stand)\b"), "hate"),
)


def as_asked(question: str) -> str:
    """A question in American spelling, its phrases in the words that facts use."""
    text = search_terms(with_apostrophes(question))
    for phrase, word in _ASKED_AS:
        text = phrase.sub(word, text)
    return text


def told_as(word: str) -> tuple[str, ...]:
    """A word of a question, and the words by which a fact can answer it."""
    return (word, *_TOLD_AS.get(word, _TOLD_AS.get(word.removesuffix("s"), ())))
