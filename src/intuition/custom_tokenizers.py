"""Three ways to turn text into numbers: one for each character, one for each word, or for pieces learned by merging.

Run it: python -m src.intuition characters words byte-pairs
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from src.intuition.terminal import heading, labelled, lines, pieces, say, suggest
from src.tokenizer import load_gpt2_encoding

TEXT = "low lower lowest slow slower slowest"  # what the three learn from
NEW_TEXT = "lowers slows"  # what they have to write after that
ACCENTED = "\u00e9"
MOST_MERGES = 12
UNKNOWN = "<UNK>"

Pair = tuple[str, str]


# --- characters


def build_vocabulary(tokens: Iterable[str]) -> dict[str, int]:
    """A number, called id, for each different token: 0, 1, 2, ... in sorted order."""
    return {token: id_ for id_, token in enumerate(sorted(set(tokens)))}


def characters() -> None:
    heading("characters", "a number for each character")
    vocabulary = build_vocabulary(TEXT)
    ids = [vocabulary[character] for character in TEXT]
    spellings = {id_: character for character, id_ in vocabulary.items()}
    back = "".join(spellings[id_] for id_ in ids)
    say("""A language model computes, so text must become numbers first. The pieces that get a number are called
        tokens, their numbers ids, and the list of all tokens is the vocabulary. The simplest token is a
        character.""")
    labelled({
        "text": TEXT,
        "vocabulary": f"{len(vocabulary)} tokens: {_spelled_out(vocabulary)}",
        "ids": " ".join(map(str, ids)),
        "and back": back,
    })  # fmt: skip
    say(f"""The good: {len(vocabulary)} numbers spell everything that these characters can spell, and nothing is
        lost on the way back. The bad: the text is {len(ids)} tokens long. A model does work for every token and
        can look back over a fixed number of them, so short is better.""")
    foreign = sorted(set("Lows!") - vocabulary.keys())
    say(f"""And a character that was not in the text has no number. Of "Lows!" these are missing:
        {" ".join(foreign) or "none"}. (A capital is another character: to the model L and l are as different as l
        and o.)""")
    suggest("""make TEXT in src/intuition/custom_tokenizers.py a line of your own with capitals and signs. How
        fast does the vocabulary grow?""")


def _spelled_out(vocabulary: dict[str, int]) -> str:
    return "  ".join(f"{token if token.strip() else repr(token)}={id_}" for token, id_ in vocabulary.items())


# --- words


def split_words(text: str) -> list[str]:
    """Words and single signs; what is between them is lost."""
    return re.findall(r"\w+|[^\w\s]", text)


def words() -> None:
    heading("words", "a number for each word")
    tokens = split_words(TEXT)
    vocabulary = build_vocabulary([*tokens, UNKNOWN])
    spellings = {id_: token for token, id_ in vocabulary.items()}
    new_ids = [vocabulary.get(token, vocabulary[UNKNOWN]) for token in split_words(NEW_TEXT)]
    say("Words are what we think in. So give each word its number, and keep one for words that never came up.")
    labelled({
        "text": TEXT,
        "vocabulary": f"{len(vocabulary)} tokens: {_spelled_out(vocabulary)}",
        "ids": " ".join(str(vocabulary[token]) for token in tokens),
    })  # fmt: skip
    say(f"""Now the text is {len(tokens)} tokens long, where characters took {len(TEXT)}. But look at words that
        were not in the text:""")
    labelled({
        "new text": NEW_TEXT,
        "ids": " ".join(map(str, new_ids)),
        "and back": " ".join(spellings[id_] for id_ in new_ids),
    })  # fmt: skip
    say(f"""{UNKNOWN} is all that is left of them. A real text has a hundred thousand different words, and
        tomorrow's names are not among them. And the numbers hide what the words share: nothing tells a model that
        "{tokens[1]}", {vocabulary[tokens[1]]}, has anything to do with "{tokens[0]}", {vocabulary[tokens[0]]}.
        The spaces are gone, too: nobody can tell how many there were.""")
    suggest("""add "fast" to TEXT in src/intuition/custom_tokenizers.py. Which ids change, and why would that
        ruin a model that was trained before?""")


# --- byte pairs


def count_pairs(texts: Iterable[Sequence[str]]) -> Counter[Pair]:
    """How often each two tokens stand side by side."""
    return Counter(pair for tokens in texts for pair in zip(tokens, tokens[1:], strict=False))


def merge(tokens: Sequence[str], pair: Pair) -> list[str]:
    """The tokens with each occurrence of the pair made one token, from left to right."""
    merged: list[str] = []
    i = 0
    while i < len(tokens):
        found = tuple(tokens[i : i + 2]) == pair
        merged.append("".join(pair) if found else tokens[i])
        i += 2 if found else 1
    return merged


def learn_merges(texts: Iterable[str], most: int) -> list[Pair]:
    """The merges that shorten the texts, in the order they are learned; none crosses from one text to the next.

    Each time the most frequent pair wins, and of equals the one whose tokens are older. A pair that is there only once
    is no pattern, so learning ends there (Sennrich et al. 2016, algorithm 1, with this project's own rule for ties).
    """
    split = [list(text) for text in texts]
    ids = build_vocabulary(token for tokens in split for token in tokens)
    merges: list[Pair] = []
    for _ in range(most):
        counts = count_pairs(split)
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]), default=None)
        if best is None or counts[best] < 2:
            break
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        split = [merge(tokens, best) for tokens in split]
    return merges


def apply_merges(text: str, merges: Sequence[Pair]) -> list[str]:
    """The tokens of a text: from characters on, the earliest learned merge that fits is made, until none does."""
    order = {pair: place for place, pair in enumerate(merges)}
    tokens = list(text)
    while fitting := [pair for pair in count_pairs([tokens]) if pair in order]:
        tokens = merge(tokens, min(fitting, key=order.__getitem__))
    return tokens


def byte_pairs() -> None:
    heading("byte-pairs", "pieces that are learned by merging")
    merges = learn_merges([TEXT], MOST_MERGES)
    say("""Between characters and words lies GPT-2's way, byte-pair encoding. Start with characters. Count which
        two tokens stand side by side most often, make them one token, and count again. When two pairs come
        equally often, the one whose tokens are older wins. A bar is the border between two tokens:""")
    _show_learning(merges)
    vocabulary = {*TEXT, *map("".join, merges)}
    tokens = apply_merges(TEXT, merges)
    end = f"{MOST_MERGES} merges are made" if len(merges) == MOST_MERGES else "No pair is left that comes twice"
    say(f"""{end}, so learning ends. The vocabulary has {len(vocabulary)} tokens now, and the text is
        {len(tokens)} tokens long instead of {len(TEXT)}. The merges know no grammar, they only count: that is why
        a piece can end in the middle of a word.""")
    say(f"""The merges are the tokenizer. To write a new text, make the same merges in the same order. No word of
        "{NEW_TEXT}" was in the text, but parts of them were:""")
    lines([pieces(NEW_TEXT), pieces(apply_merges(NEW_TEXT, merges))])
    gpt2 = load_gpt2_encoding()
    say(f"""GPT-2 begins not with characters but with the 256 values of a byte, and has {gpt2.n_vocab - 256 - 1:,}
        merges on top. Every text in the world is made of bytes (an e with an acute accent is
        {len(ACCENTED.encode("utf-8"))} of them), so nothing is ever unknown. It writes "{NEW_TEXT}" as:""")
    lines([pieces(gpt2.decode([id_]) for id_ in gpt2.encode_ordinary(NEW_TEXT))])
    suggest("""set MOST_MERGES in src/intuition/custom_tokenizers.py to 2, or double the text with TEXT = 2 *
        "...". What becomes one token when a text repeats itself?""")


def _show_learning(merges: Sequence[Pair]) -> None:
    """The text after each merge, with the pairs that were counted before it."""
    tokens = list(TEXT)
    lines([pieces(tokens)])
    for place, pair in enumerate(merges, 1):
        counts = count_pairs([tokens])
        others = [other for other, _ in counts.most_common(4) if other != pair]
        best = ", ".join(f"{pieces(other)} {counts[other]}" for other in [pair, *others[:2]])
        tokens = merge(tokens, pair)
        lines([
            f"counted    {best}, ...",
            f"merge {place:<4} {pieces(pair)} becomes {pieces([''.join(pair)])}: {len(tokens)} tokens",
            pieces(tokens),
        ])  # fmt: skip


if __name__ == "__main__":
    characters()
    words()
    byte_pairs()
