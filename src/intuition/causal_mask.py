"""Why a token must not look at what comes after it, and how it is kept from it.

Run it: python -m src.intuition causal-mask
"""

import math
from collections.abc import Sequence

from src.intuition.attention_by_hand import KEYS, QUERIES, TOKENS, VALUES, Matrix, attention_scores, mix
from src.intuition.softmax import softmax
from src.intuition.terminal import heading, heat_map, lines, say, suggest

# What the last token is replaced with, to see who notices.
OTHER_KEY, OTHER_VALUE = (2.0, 2.0), (9.0, 9.0)


def hide_future(scores: Matrix) -> list[list[float]]:
    """The scores with -inf wherever a token would look at one after it."""
    return [[score if j <= i else -math.inf for j, score in enumerate(row)] for i, row in enumerate(scores)]


def attend(keys: Matrix, values: Matrix, *, causal: bool) -> list[list[float]]:
    """What each token gathers, with the queries of the demonstration `attention`."""
    scores = attention_scores(QUERIES, keys)
    return mix([softmax(row) for row in (hide_future(scores) if causal else scores)], values)


def causal_mask() -> None:
    heading("causal-mask", "no token looks ahead")
    say("""In the demonstration attention, "cat" looked at "sat", which comes after it. While a text is being
        written nothing comes after. And in training the next word is the answer that the model is asked for: seen
        beforehand, there is nothing to learn. So the scores of all later tokens are set to minus infinity.""")
    scores = attention_scores(QUERIES, KEYS)
    hidden = hide_future(scores)
    rows = zip(TOKENS, scores, hidden, strict=True)
    lines([
        f"{'scores':>12}{'masked':>33}",
        *(f"{token}  {_row(before)}   ->   {_row(after)}" for token, before, after in rows),
    ])  # fmt: skip
    say("""exp(-inf) is 0, so softmax gives those places no weight, and the others share all of it. The upper
        right corner is empty, the first token looks at itself only:""")
    heat_map([softmax(row) for row in hidden], TOKENS, TOKENS)
    say(f"""The proof: replace the last token, its key with {OTHER_KEY} and its value with {OTHER_VALUE}, and see
        by how much what each token gathers has moved.""")
    moved = {causal: _moves(causal=causal) for causal in (False, True)}
    lines([
        f"{'':<8}{'without mask':>14}{'with mask':>14}",
        *(f"{token:<8}{a:14.4f}{b:14.4f}" for token, a, b in zip(TOKENS, moved[False], moved[True], strict=True)),
    ])  # fmt: skip
    say("""With the mask, the tokens before the last one do not notice. So one pass over a text trains all its
        places at once, each as if the text ended there, and a chat can keep what it computed for earlier tokens
        (the cache in src/model/attention.py).""")
    suggest("""change j <= i to i - 1 <= j <= i in src/intuition/causal_mask.py: each token sees itself and one
        before it. How could the third, in a second layer, still hear of the first?""")


def _moves(*, causal: bool) -> list[float]:
    """The largest change in what each token gathers when the last one is replaced."""
    before = attend(KEYS, VALUES, causal=causal)
    after = attend((*KEYS[:-1], OTHER_KEY), (*VALUES[:-1], OTHER_VALUE), causal=causal)
    return [max(abs(x - y) for x, y in zip(a, b, strict=True)) for a, b in zip(before, after, strict=True)]


def _row(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:7.2f}" for number in numbers)
