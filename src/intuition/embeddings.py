"""Embeddings: a table with a vector for each token. Run it: python -m src.intuition embeddings"""

import math
from collections.abc import Mapping, Sequence

from src.intuition.attention_by_hand import dot, mix
from src.intuition.custom_tokenizers import build_vocabulary
from src.intuition.next_word import count_followers
from src.intuition.softmax import softmax
from src.intuition.terminal import bars, heading, heat_map, labelled, lines, say, suggest
from src.model.config import GPT_CONFIGS, GPTConfig

TEXT = "the cat sat . the dog sat . the cat ran . a dog ran . a cat slept . the dog ate ."
SHOWN = ("the", "a", "cat", "dog", "sat", "ran")

Table = Sequence[Sequence[float]]


def embedding_table(words: Sequence[str], vocabulary: Mapping[str, int]) -> list[list[float]]:
    """A row for each token of the vocabulary, in the order of the ids: how often each token came right after it."""
    followers = count_followers(words)
    return [[float(followers[word][other]) for other in vocabulary] for word in vocabulary]


def similarity(a: Sequence[float], b: Sequence[float]) -> float:
    """The cosine of the angle between two vectors: their dot product, divided by both lengths."""
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def next_token_scores(vector: Sequence[float], table: Table) -> list[float]:
    """The output of a model: the dot product of its last vector with the row of each token."""
    return [dot(vector, row) for row in table]


def embeddings() -> None:
    """Show the lookup in an embedding table, similar rows, and the scores of the next token from the same table."""
    heading("embeddings", "a vector for each token")
    vocabulary = build_vocabulary(TEXT.split())
    table = embedding_table(TEXT.split(), vocabulary)
    say("""An id is only a name: 3 is no more like 4 than like 400. So the first thing a model does is to look up each
        id in a table. Row 3 of the table is the vector of token 3, its embedding. Looking up is all that happens.
        A model learns the numbers in the table. Here we count instead: a word's row says how often each word came
        right after it.""")
    labelled({"text": TEXT})
    lines([
        "id  token" + "".join(f"{word:>6}" for word in vocabulary),
        *(f"{vocabulary[word]:>2}  {word:<5}" + "".join(f"{n:6g}" for n in table[vocabulary[word]]) for word in SHOWN),
    ])  # fmt: skip
    rows = {word: table[vocabulary[word]] for word in SHOWN}
    say("""How alike are two tokens? Multiply their vectors number by number and add up: the dot product. It is large
        if both are large in the same places. Divided by the lengths of both vectors, it is 1 for the same direction
        and 0 if they have nothing in common:""")
    heat_map([[similarity(a, b) for b in rows.values()] for a in rows.values()], SHOWN, SHOWN)
    cat_dog, cat_sat = similarity(rows["cat"], rows["dog"]), similarity(rows["cat"], rows["sat"])
    say(f""""cat" and "dog" were never next to each other. They are similar ({cat_dog:.2f}) because the same words
        follow them. "cat" and "sat" were neighbours, and have nothing in common ({cat_sat:.2f}). What a model learns
        about one token, it can use for similar tokens. Ids don't allow that.""")
    say("""The same table is used a second time, at the end. The model turns what it has read into a last vector, and
        the score of each token is the dot product of that vector with the token's row. If it has read "the", a good
        last vector lies between "cat" and "dog". Their average has these scores, and after softmax these
        probabilities:""")
    _show_scores(list(vocabulary), table, mix([[0.5, 0.5]], [rows["cat"], rows["dog"]])[0])
    gpt2 = GPTConfig.of(GPT_CONFIGS["gpt2-124M"])
    share = gpt2.vocab_size * gpt2.d_model / gpt2.parameter_count()[0]
    say(f"""GPT-2's table has {gpt2.vocab_size:,} rows of {gpt2.d_model} numbers, {share:.0%} of the model. They start
        at random, and gradient descent moves tokens together that are used alike. A second table has a row for each
        of the {gpt2.context_length:,} positions. It is added, so that the model knows the order of the tokens.""")
    suggest("""add " the horse sat . the horse ran ." to TEXT in src/intuition/embeddings.py, and replace "a" with
        "horse" in SHOWN. Which animal is nearer to the cat?""")


def _show_scores(words: Sequence[str], table: Table, vector: Sequence[float]) -> None:
    scores = next_token_scores(vector, table)
    lines(["  ".join(f"{word} {score:g}" for word, score in zip(words, scores, strict=True))])
    bars(dict(zip(words, softmax(scores), strict=True)))
