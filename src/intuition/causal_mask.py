"""Why a token must not look at later tokens, and how the causal mask prevents it.

Run it: python -m src.intuition causal-mask
"""

import math
from collections.abc import Sequence

from src.intuition.attention_by_hand import KEYS, QUERIES, TOKENS, VALUES, Matrix, attention_scores, mix, vector
from src.intuition.softmax import softmax
from src.intuition.terminal import heading, heat_map, lines, say, suggest

# The last token gets this key and value instead, to see which other tokens notice.
OTHER_KEY, OTHER_VALUE = (2.0, 2.0), (9.0, 9.0)
WINDOW = 1024  # up to this many tokens are visible: the token itself and those right before it


def hide_future(scores: Matrix) -> list[list[float]]:
    """The scores, with -inf wherever a token would look at a later one, or further back than WINDOW."""
    return [
        [score if i - WINDOW < j <= i else -math.inf for j, score in enumerate(row)] for i, row in enumerate(scores)
    ]


def attend(keys: Matrix, values: Matrix, *, causal: bool) -> list[list[float]]:
    """The output of attention for each token, with the queries of the demonstration `attention`."""
    scores = attention_scores(QUERIES, keys)
    return mix([softmax(row) for row in (hide_future(scores) if causal else scores)], values)


def causal_mask() -> None:
    """Show the causal mask, and prove that no earlier token notices a later one."""
    heading("causal-mask", "no token looks ahead")
    say("""In the demonstration `attention`, "cat" looked at "sat", which comes after it. During generation nothing
        comes after it yet. And in training the next token is the answer that the model has to predict: if it
        could look, there would be nothing to learn. So the scores of all later tokens are set to minus
        infinity. A row belongs to the token that looks, a column to the token it looks at:""")
    scores = attention_scores(QUERIES, KEYS)
    hidden = hide_future(scores)
    rows = zip(TOKENS, scores, hidden, strict=True)
    columns = " ".join(f"{token:>7}" for token in TOKENS)
    lines([
        f"{'scores':>12}{'masked':>33}",
        f"     {columns}        {columns}",
        *(f"{token}  {_row(before)}   ->   {_row(after)}" for token, before, after in rows),
    ])  # fmt: skip
    say("""exp(-inf) is 0, so softmax gives those positions no weight, and the others share all of it. The upper
        right corner is empty, and the first token looks only at itself:""")
    weights = [softmax(row) for row in hidden]
    heat_map(weights, TOKENS, TOKENS)
    say("The output of a token adds up the values of the tokens that it sees, each multiplied by its weight:")
    lines(map(_sum_of_values, weights, TOKENS))
    say(f"""The proof: replace the last token's key with {OTHER_KEY} and its value with {OTHER_VALUE}. An output is
        two numbers. The table shows the larger of their two changes.""")
    changes = {causal: _output_changes(causal=causal) for causal in (False, True)}
    lines([
        f"{'':<8}{'without mask':>14}{'with mask':>14}",
        *(f"{token:<8}{a:14.4f}{b:14.4f}" for token, a, b in zip(TOKENS, changes[False], changes[True], strict=True)),
    ])  # fmt: skip
    say("""With the mask, the earlier tokens do not notice. So one forward pass trains all positions at once,
        each as if the text ended there. And during generation the keys and values of earlier tokens can be cached
        (the KV cache, src/model/kv_cache.py).""")
    suggest("""set WINDOW in src/intuition/causal_mask.py to 2: then each token sees only itself and the one before it.
        In a second layer, how could the third token still learn something from the first?""")


def _output_changes(*, causal: bool) -> list[float]:
    """For each token, the largest change of its output when the last token is replaced."""
    before = attend(KEYS, VALUES, causal=causal)
    after = attend((*KEYS[:-1], OTHER_KEY), (*VALUES[:-1], OTHER_VALUE), causal=causal)
    return [max(abs(x - y) for x, y in zip(a, b, strict=True)) for a, b in zip(before, after, strict=True)]


def _sum_of_values(weights: Sequence[float], token: str) -> str:
    seen = [(weight, value) for weight, value in zip(weights, VALUES, strict=True) if weight > 0]
    terms = " + ".join(f"{weight:.2f} x {vector(value)}" for weight, value in seen)
    return f"{token}: {terms} = {vector(mix([weights], VALUES)[0])}"


def _row(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:7.2f}" for number in numbers)
