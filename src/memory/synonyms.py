"""Other words by which a fact can answer a question: "What is my job?" finds "I work as a vet."

All words are in American spelling. The index finds the other forms of each word, such as "works".
"""

import re

from src.memory.spelling import with_apostrophes
from src.memory.words import search_terms


def question_terms(question: str) -> str:
    """The search terms of a question. A phrase such as "get up" becomes one word that has synonyms, such as "wake"."""
    terms = search_terms(with_apostrophes(question))
    for phrase, word in _PHRASES:
        terms = phrase.sub(word, terms)
    return terms


def with_synonyms(word: str) -> tuple[str, ...]:
    """A word of a question, and the words or quoted phrases by which a fact can answer it."""
    return (word, *_SYNONYMS.get(word, _SYNONYMS.get(word.removesuffix("s"), ())))


_PHRASES = (
    (re.compile(r"\bget up\b"), "wake"),
    (re.compile(r"\b(?:come|am i|m) from\b"), "hometown"),
    (re.compile(r"\bdo for (?:a|my) living\b|\bearn my living\b"), "work"),
    (re.compile(r"\b(?:do not|don t|not|can t|cannot) (?:i )?(?:like|stand)\b|\bdon t i (?:like|stand)\b"), "hate"),
)
_I_AM_A = ('"i m a"', '"i m an"', '"i am a"', '"i am an"')
_SYNONYMS = {
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
    "job": ("profession", "unemployed", "work", *_I_AM_A),
    "kid": ("child", "son", "daughter"),
    "language": ("speak",),
    "like": ("favorite", "love", "enjoy"),
    "live": ("moved", "rent"),
    "major": ("study", "studied"),
    "meal": ("dish", "food"),
    "occupation": ("job", "work", *_I_AM_A),
    "old": ("birthday", "born", "turned"),
    "parent": ("mother", "father"),
    "partner": ("boyfriend", "fiance", "girlfriend", "husband", "married", "spouse", "wife"),
    "pet": ("cat", "dog", "hamster", "horse", "parrot", "rabbit"),
    "profession": ("job", "work", *_I_AM_A),
    "salary": ("earn",),
    "scared": ("afraid", "fear"),
    "sibling": ("brother", "sister"),
    "spouse": ("husband", "wife", "partner"),
    "sport": ("cycle", "play", "run", "ski", "swim"),
    "study": ("degree", "graduated", "student"),
    "team": ("support", "club"),
    "town": ("city", "live", "moved"),
    "university": ("study", "studied", "student"),
    "vehicle": ("car", "drive"),
    "wake": ('"get up"',),
    "weight": ("weigh",),
    "work": ("job", "profession"),
}
