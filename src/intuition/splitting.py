"""Why GPT-2 splits a text into pieces before any merge, and where. Run it: python -m src.intuition splitting"""

import regex

from src.intuition.custom_tokenizers import apply_merges, learn_merges
from src.intuition.terminal import heading, lines, pieces, say, suggest
from src.tokenizer import load_gpt2_encoding

# GPT-2's rule (Radford et al. 2019, encoder.py). At each position, the first of these patterns that matches applies.
RULE = {
    r"'s|'t|'re|'ve|'m|'ll|'d": "the ends of English contractions",
    r" ?\p{L}+": "letters, with at most one space before",
    r" ?\p{N}+": "digits, with at most one space before",
    r" ?[^\s\p{L}\p{N}]+": "other symbols, with at most one space before",
    r"\s+(?!\S)": "whitespace, except the last one before text",
    r"\s+": "any other whitespace",
}
EXAMPLES = {
    "Hello world, hello": "a word takes its space along",
    "I don't think we'll": "a contraction is cut before 't or 'll",
    "I DON'T THINK WE'LL": "in capitals, on both sides of the '",
    "In 2024, 3.14": "digits and punctuation are separate",
    "if x:\n    return": "indentation in code",
}
DOGS = "A dog. A dog. A dog! A dog! A dog? A dog? A dog, a dog, a dog"
MAX_MERGES = 20


def split(text: str) -> list[str]:
    """The pieces that GPT-2 splits a text into; joined, they are the text."""
    return regex.findall("|".join(RULE), text)


def splitting() -> None:
    """Show what merging learns with and without splitting the text first."""
    heading("splitting", "where GPT-2 splits before it merges")
    say("Byte-pair merges take whatever is frequent. Let them loose on this text:")
    lines([DOGS])
    whole = _dog_tokens(learn_merges([DOGS], MAX_MERGES))
    cut = _dog_tokens(learn_merges(split(DOGS), MAX_MERGES))
    lines([f"unsplit      {len(whole)} tokens hold a dog: {pieces(whole)}"])
    say("""The same dog is learned again and again, each time with different punctuation around it, and each of
        these tokens has to learn on its own what a dog is. So GPT-2 splits the text first and only merges within
        a piece:""")
    lines([f"split first  {len(cut)} token{'s hold' if len(cut) > 1 else ' holds'} a dog: {pieces(cut)}"])
    say("""It splits with a regular expression, a pattern that says what a piece may look like. These are its
        six parts. \\p{L} is any letter, \\p{N} any digit and \\s any whitespace, in every script of the world.""")
    lines(f"{part:<27}{meaning}" for part, meaning in RULE.items())
    say("This is what it does. A bar marks a cut.")
    lines(f"{_one_line(pieces(split(text))):<40}{what}" for text, what in EXAMPLES.items())
    encoding = load_gpt2_encoding()
    say("The space belongs to the word after it. So a word has two ids, inside a text and at its start:")
    lines(f"{pieces([text]):<9} {' '.join(map(str, encoding.encode_ordinary(text)))}" for text in (" world", "world"))
    say("""So a prompt that ends with a space asks for a next token without one. In training that was rare, and
        the output gets worse. That is why no prompt in this project ends with a space.""")
    suggest("""add a line to EXAMPLES in src/intuition/splitting.py: an e-mail address, a word in another
        language, three spaces in a row.""")


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _dog_tokens(merges: list[tuple[str, str]]) -> list[str]:
    """The distinct tokens of DOGS that contain a whole dog, in order of appearance."""
    used = apply_merges(DOGS, merges)
    return list(dict.fromkeys(token for token in used if "dog" in token))
