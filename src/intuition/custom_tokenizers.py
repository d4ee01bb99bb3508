"""Three ways to turn text into numbers: by character, by word, or by pieces learned by merging.

Run it: python -m src.intuition characters words byte-pairs
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from textwrap import wrap

from src.intuition.terminal import filled, heading, labelled, lines, pieces, say, suggest
from src.tokenizer import load_gpt2_encoding

TEXT = "low lower lowest slow slower slowest"  # all three learn from this
NEW_TEXT = "lowers slows"  # and then have to encode this
ACCENTED = "\u00e9"
MAX_MERGES = 12
UNKNOWN = "<UNK>"

Pair = tuple[str, str]


# --- characters


def build_vocabulary(tokens: Iterable[str]) -> dict[str, int]:
    """An id for each distinct token: 0, 1, 2, ... in sorted order."""
    return {token: id_ for id_, token in enumerate(sorted(set(tokens)))}


def characters() -> None:
    """Show one token per character: nothing is lost, but texts get long."""
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
    say(f"""The upside: {len(vocabulary)} ids can spell any text made of these characters, and decoding loses
        nothing. The downside: the text is {len(ids)} tokens long. A model does work for every token and can only
        look back over a limited number of them, so shorter is better.""")
    foreign = sorted(set("Lows!") - vocabulary.keys())
    say(f"""And a character that was not in the text has no id. Missing from "Lows!":
        {" ".join(foreign) or "none"}. (A capital is a different character: to the model, L and l are as different
        as l and o.)""")
    suggest("""replace TEXT in src/intuition/custom_tokenizers.py with a line of your own that has capitals and
        punctuation. How fast does the vocabulary grow?""")


def _spelled_out(vocabulary: dict[str, int]) -> str:
    return "  ".join(f"{token if token.strip() else repr(token)}={id_}" for token, id_ in vocabulary.items())


# --- words


def split_words(text: str) -> list[str]:
    """Words and single punctuation marks; the whitespace between them is lost."""
    return re.findall(r"\w+|[^\w\s]", text)


def words() -> None:
    """Show one token per word: texts get short, but unseen words and spaces are lost."""
    heading("words", "a number for each word")
    tokens = split_words(TEXT)
    vocabulary = build_vocabulary([*tokens, UNKNOWN])
    spellings = {id_: token for token, id_ in vocabulary.items()}
    new_ids = [vocabulary.get(token, vocabulary[UNKNOWN]) for token in split_words(NEW_TEXT)]
    say("We think in words. So give each word an id, and reserve one for words that never came up.")
    labelled({
        "text": TEXT,
        "vocabulary": f"{len(vocabulary)} tokens: {_spelled_out(vocabulary)}",
        "ids": " ".join(str(vocabulary[token]) for token in tokens),
    })  # fmt: skip
    say(f"""Now the text is {len(tokens)} tokens long; as characters it was {len(TEXT)}. But look what happens
        to words that were not in the text:""")
    labelled({
        "new text": NEW_TEXT,
        "ids": " ".join(map(str, new_ids)),
        "and back": " ".join(spellings[id_] for id_ in new_ids),
    })  # fmt: skip
    say(f"""{UNKNOWN} is all that is left of a new word. Real texts have a hundred thousand different words, and
        new names appear every day. The ids also hide what words have in common: nothing tells a model
        that "lower" has anything to do with "low". The spaces are gone too: nobody can tell how many there
        were.""")
    suggest("""add "fast" to TEXT in src/intuition/custom_tokenizers.py. Which ids change, and why would that
        ruin a model that is already trained?""")


# --- byte pairs


def count_pairs(texts: Iterable[Sequence[str]]) -> Counter[Pair]:
    """How often each pair of adjacent tokens occurs."""
    return Counter(pair for tokens in texts for pair in zip(tokens, tokens[1:], strict=False))


def merge(tokens: Sequence[str], pair: Pair) -> list[str]:
    """The tokens with each occurrence of the pair merged into one token, from left to right."""
    merged: list[str] = []
    i = 0
    while i < len(tokens):
        found = tuple(tokens[i : i + 2]) == pair
        merged.append("".join(pair) if found else tokens[i])
        i += 2 if found else 1
    return merged


def learn_merges(texts: Iterable[str], max_merges: int) -> list[Pair]:
    """Up to `max_merges` merges that shorten the texts, in the order they are learned. No merge spans two texts.

    Each step merges the most frequent pair; of equally frequent pairs the one with the older tokens wins. A pair that
    occurs only once is no pattern, so learning ends there (Sennrich et al. 2016, algorithm 1, with a rule for ties).
    """
    split = [list(text) for text in texts]
    ids = build_vocabulary(token for tokens in split for token in tokens)
    merges: list[Pair] = []
    for _ in range(max_merges):
        counts = count_pairs(split)
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]), default=None)
        if best is None or counts[best] < 2:
            break
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        split = [merge(tokens, best) for tokens in split]
    return merges


def apply_merges(text: str, merges: Sequence[Pair]) -> list[str]:
    """The tokens of a text: start with characters and apply the earliest learned merge that fits, until none does."""
    order = {pair: i for i, pair in enumerate(merges)}
    tokens = list(text)
    while fitting := [pair for pair in count_pairs([tokens]) if pair in order]:
        tokens = merge(tokens, min(fitting, key=order.__getitem__))
    return tokens


def byte_pairs() -> None:
    """Show byte-pair encoding learn its merges, then apply them to a new text."""
    heading("byte-pairs", "pieces learned by merging")
    merges = learn_merges([TEXT], MAX_MERGES)
    say("""GPT-2 uses byte-pair encoding, a middle way between characters and words. Start with characters. Count
        which two tokens occur next to each other most often, merge them into one token, and count again. Of equally
        frequent pairs, the one with the lower ids is merged. The characters have ids in alphabetical order, and each
        merged token gets the next id. A bar marks the border between two tokens:""")
    _show_learning(merges)
    vocabulary = {*TEXT, *map("".join, merges)}
    tokens = apply_merges(TEXT, merges)
    end = f"{MAX_MERGES} merges are done" if len(merges) == MAX_MERGES else "No pair occurs twice any more"
    say(f"""{end}, so learning ends. The vocabulary has {len(vocabulary)} tokens now, and the text is
        {len(tokens)} tokens long instead of {len(TEXT)}. Merging knows no grammar, it only counts. That is why
        a token can end in the middle of a word.""")
    say(f"""The list of merges is the tokenizer. To encode a new text, apply the same merges in the same
        order, wherever they fit. "{NEW_TEXT}", before and after:""")
    lines([pieces(NEW_TEXT), pieces(apply_merges(NEW_TEXT, merges))])
    gpt2 = load_gpt2_encoding()
    say(f"""GPT-2 starts from the 256 possible bytes instead of characters, and has {gpt2.n_vocab - 256 - 1:,}
        merges on top. Every text is made of bytes (an e with an acute accent is
        {len(ACCENTED.encode("utf-8"))} of them), so nothing is ever unknown. It encodes "{NEW_TEXT}" as:""")
    lines([pieces(gpt2.decode([id_]) for id_ in gpt2.encode_ordinary(NEW_TEXT))])
    suggest("""set MAX_MERGES in src/intuition/custom_tokenizers.py to 2. Then set it to 40, and double the text
        with TEXT = 2 * "...". What becomes of a text that repeats itself?""")


def _show_learning(merges: Sequence[Pair]) -> None:
    """Print the text after each merge, and the pairs that were counted before it."""
    tokens = list(TEXT)
    lines(filled(tokens))
    for i, pair in enumerate(merges, 1):
        counts = count_pairs([tokens])
        others = [other for other, _ in counts.most_common(4) if other != pair]
        best = ", ".join(f"{pieces(other)} {counts[other]}" for other in [pair, *others[:2]])
        tokens = merge(tokens, pair)
        lines([
            *wrap(f"counted    {best}, ...", 76),
            *wrap(f"merge {i:<4} {pieces(pair)} becomes {pieces([''.join(pair)])}: {len(tokens)} tokens", 76),
            *filled(tokens),
        ])  # fmt: skip


if __name__ == "__main__":
    characters()
    words()
    byte_pairs()
