"""Attention on three tokens in plain Python, every number shown. Run it: python -m src.intuition attention"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from src.intuition.softmax import softmax
from src.intuition.terminal import heading, heat_map, lines, say, suggest
from src.model.config import GPT_CONFIGS

# Two numbers for each token, chosen by hand: the first is about things, the second about actions.
TOKENS = ("the", "cat", "sat")
QUERIES = ((0.0, 0.0), (0.0, 2.0), (2.0, 0.0))
KEYS = ((0.0, 0.0), (2.0, 0.0), (0.0, 2.0))
VALUES = ((1.0, 1.0), (4.0, 0.0), (0.0, 2.0))
PICTURE = Path("logs/intuition/attention.png")

Vector = Sequence[float]
Matrix = Sequence[Vector]


def dot(a: Vector, b: Vector) -> float:
    """The dot product: large if both vectors are large in the same places."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def attention_scores(queries: Matrix, keys: Matrix) -> list[list[float]]:
    """How well each query fits each key: dot(query, key) / sqrt(vector length), one row per query.

    The square root keeps scores from growing with the length of the vectors (Vaswani et al. 2017, section 3.2.1).
    """
    return [[dot(query, key) / math.sqrt(len(key)) for key in keys] for query in queries]


def mix(weights: Matrix, values: Matrix) -> list[list[float]]:
    """For each row of weights, the weighted sum of the values."""
    return [[dot(row, column) for column in zip(*values, strict=True)] for row in weights]


def attention(out: Path = PICTURE) -> None:
    """Show attention step by step, and draw its weights as a PNG.

    Raises OSError if the picture can't be written.
    """
    heading("attention", "how a token gathers information from the others")
    say("""A word means little alone: who sat? Attention lets each token gather from the others what it needs. To
        do so, each token has three vectors, short lists of numbers. Its query says what it looks for, its key
        what it offers, its value what it passes on. A trained model computes them from the token; here they are
        chosen by hand. The first number is about things, the second about actions: "sat" looks for a thing, "cat"
        for an action, "the" for nothing.""")
    rows = zip(TOKENS, QUERIES, KEYS, VALUES, strict=True)
    lines(
        [
            "token   query       key         value",
            *(f"{t:<8}{vector(q)}  {vector(k)}  {vector(v)}" for t, q, k, v in rows),
        ]
    )
    scores = attention_scores(QUERIES, KEYS)
    weights = [softmax(row) for row in scores]
    mixed = mix(weights, VALUES)
    _show_last(scores[-1], weights[-1], mixed[-1])
    say("All three tokens at once: each row shows where one token looks, and sums to 1.")
    heat_map(weights, TOKENS, TOKENS)
    lines(f"{token} gathers {vector(output)}" for token, output in zip(TOKENS, mixed, strict=True))
    gpt2 = GPT_CONFIGS["gpt2-124M"]
    say(f"""The query of "the" is all zeros, so it looks at all tokens equally and gets the average of their
        values. "cat" finds its action, "sat" its thing. GPT-2 does this {gpt2["n_heads"]} times in parallel (its
        heads) in each of its {gpt2["n_layers"]} layers, with vectors of {gpt2["d_model"] // gpt2["n_heads"]}
        numbers instead of our {len(KEYS[0])}.""")
    draw_weights(weights, TOKENS, out)
    print(f"  The weights as a picture: {out}\n")
    suggest("""set the query of "sat" in src/intuition/attention_by_hand.py, the last of QUERIES, to (0.5, 0.0), then
        to (20.0, 0.0). When does it look at only one token?""")


def _show_last(scores: Vector, weights: Vector, mixed: Vector) -> None:
    """Print the arithmetic of the last token, one line for each token that it looks at."""
    last, query = TOKENS[-1], QUERIES[-1]
    say(f"""Step by step for "{last}". Take the dot product of its query with each key: multiply number by
        number and add up. The better they fit, the larger the score. Divide by the square root of the vector
        length, sqrt({len(query)}) = {math.sqrt(len(query)):.2f}. Softmax turns the scores into weights.""")
    lines(
        f"{last} -> {token}   {_products(query, key)} = {dot(query, key):g}"
        f"   / {math.sqrt(len(query)):.2f} = {score:.2f}   weight {weight:.3f}"
        for token, key, score, weight in zip(TOKENS, KEYS, scores, weights, strict=True)
    )
    say("Then it adds up the values, each multiplied by its weight:")
    for i, total in enumerate(mixed):
        terms = " + ".join(f"{weight:.3f} x {value[i]:g}" for weight, value in zip(weights, VALUES, strict=True))
        print(f"  {terms} = {total:.2f}")
    print()


def _products(a: Vector, b: Vector) -> str:
    return " + ".join(f"{x:g} x {y:g}" for x, y in zip(a, b, strict=True))


def vector(numbers: Vector) -> str:
    """The numbers in brackets, with one decimal."""
    return f"({', '.join(f'{number:.1f}' for number in numbers)})"


def draw_weights(weights: Matrix, tokens: Sequence[str], out: Path) -> None:
    """Save the weights as a heat map, a PNG, and create its folder if needed. Raises OSError if that fails."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    figure = Figure(figsize=(4.8, 4), layout="constrained")
    axes = figure.add_subplot(title="Attention weights", xlabel="looks at", ylabel="token")
    image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(tokens)), tokens)
    axes.set_yticks(range(len(tokens)), tokens)
    for row, cells in enumerate(weights):
        for column, weight in enumerate(cells):
            colour = "white" if weight > 0.5 else "black"
            axes.text(column, row, f"{weight:.2f}", ha="center", va="center", color=colour)
    figure.colorbar(image, ax=axes, shrink=0.8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(drawn.getvalue())  # only after drawing: if that fails, an earlier picture stays
    except OSError as error:
        raise OSError(
            f"can't write the picture {out}: {error.strerror}; choose another file with --out PATH"
        ) from error
