"""Why GPT-2 cuts a text into pieces before any merge, and where it cuts. Run it: python -m src.intuition splitting"""

import regex

from src.intuition.custom_tokenizers import apply_merges, learn_merges
from src.intuition.terminal import heading, lines, pieces, say, suggest
from src.tokenizer import load_gpt2_encoding

# GPT-2's rule (Radford et al. 2019, in their encoder.py). At each place the first line that fits takes what it can.
RULE = {
    r"'s|'t|'re|'ve|'m|'ll|'d": "the ends of English contractions",
    r" ?\p{L}+": "letters, with one space before them",
    r" ?\p{N}+": "digits, with one space before them",
    r" ?[^\s\p{L}\p{N}]+": "signs, with one space before them",
    r"\s+(?!\S)": "spaces, but the last one stays with what follows",
    r"\s+": "any space that is left",
}
EXAMPLES = {
    "Hello world, hello": "a word brings its space along",
    "I don't think we'll": "contractions fall apart",
    "I DON'T THINK WE'LL": "but not in capitals",
    "In 2024, 3.14": "digits keep apart from signs",
    "if x:\n    return": "spaces of program code",
}
DOGS = "A dog. A dog. A dog! A dog! A dog? A dog? A dog, a dog, a dog"
MOST_MERGES = 20


def split(text: str) -> list[str]:
    """The pieces that GPT-2 cuts a text into; their join is the text."""
    return regex.findall("|".join(RULE), text)


def splitting() -> None:
    heading("splitting", "where GPT-2 cuts before it merges")
    say("Byte-pair merges take whatever comes often. Let them loose on this text:")
    lines([DOGS])
    whole = _dog_tokens(learn_merges([DOGS], MOST_MERGES))
    cut = _dog_tokens(learn_merges(split(DOGS), MOST_MERGES))
    lines([f"without cutting   {len(whole)} tokens hold a dog: {pieces(whole)}"])
    say("""The same dog is learned again and again, each time with another sign or neighbour, and each of these
        tokens has to learn what a dog is on its own. So GPT-2 cuts the text first, and merges within a piece
        only:""")
    lines([f"cut first         {len(cut)} token{'s hold' if len(cut) > 1 else ' holds'} a dog: {pieces(cut)}"])
    say("""It cuts by a regular expression, a pattern that says what a piece may be. These are its six parts.
        \\p{L} is any letter, \\p{N} any digit, \\s any white space, in all the world's scripts.""")
    lines(f"{part:<27}{meaning}" for part, meaning in RULE.items())
    say("See what it does. A bar is a cut.")
    lines(f"{_one_line(pieces(split(text))):<40}{what}" for text, what in EXAMPLES.items())
    encoding = load_gpt2_encoding()
    say("The space belongs to the word after it. So one word has two ids, in a sentence and at its beginning:")
    lines(f"{pieces([text]):<9} {' '.join(map(str, encoding.encode_ordinary(text)))}" for text in (" world", "world"))
    say("""And a prompt that ends with a space asks for a next token that begins without one. That is rare, and
        the answer is worse. So prompts here end without.""")
    suggest("""add a line to EXAMPLES in src/intuition/splitting.py: an e-mail address, a word of another
        language, three spaces in a row.""")


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _dog_tokens(merges: list[tuple[str, str]]) -> list[str]:
    """The tokens that the text of dogs really uses and that hold a whole dog, each once, in their order."""
    used = apply_merges(DOGS, merges)
    return list(dict.fromkeys(token for token in used if "dog" in token))
