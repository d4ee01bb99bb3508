"""Gradient descent on the smallest model: its loss falls step by step.

Run it: python -m src.intuition gradient-descent
"""

import math
from collections.abc import Sequence

from src.intuition.next_word import TEXT, count_followers
from src.intuition.softmax import softmax
from src.intuition.terminal import heading, lines, say, suggest
from src.model.config import GPT_CONFIGS, GPTConfig

WORD = "the"  # what follows it in the text of `next-word`?
LEARNING_RATE = 1.0
STEPS = 10
RATES = (0.1, 1.0, 10.0)
SHOWN_STEPS = (0, 1, 2, 3, 4, 10)
NUDGE = 0.001

Vector = Sequence[float]


def loss(scores: Vector, shares: Vector) -> float:
    """The mean of -ln(probability) if each token comes next in this share of the cases (shares sum to 1)."""
    return -sum(share * math.log(prob) for share, prob in zip(shares, softmax(scores), strict=True))


def gradient(scores: Vector, shares: Vector) -> list[float]:
    """How fast the loss rises with each score. For softmax it is the probability minus the share."""
    return [prob - share for share, prob in zip(shares, softmax(scores), strict=True)]


def step(scores: Vector, shares: Vector, learning_rate: float) -> list[float]:
    """The scores after one step against the gradient."""
    return [s - learning_rate * slope for s, slope in zip(scores, gradient(scores, shares), strict=True)]


def descend(shares: Vector, learning_rate: float, steps: int) -> list[list[float]]:
    """The scores before each step and after the last, from scores of 0: `steps` + 1 rows."""
    path = [[0.0] * len(shares)]
    for _ in range(steps):
        path.append(step(path[-1], shares, learning_rate))
    return path


def gradient_descent() -> None:
    """Show a model with one score for each word learn by gradient descent what `next-word` counted."""
    heading("gradient-descent", "how a model learns")
    counts = count_followers(TEXT.split())[WORD]
    shares = [count / counts.total() for count in counts.values()]
    path = descend(shares, LEARNING_RATE, STEPS)
    say(f"""The model of `next-word` counted. A network has parameters instead: numbers that training changes in small
        steps, so that the loss falls. The smallest network has a score for each word that may follow
        "{WORD}", and softmax turns the scores into probabilities. In the text, "{WORD}" was followed by
        {_listed(counts)}. At first all scores are 0.""")
    _show_first_step(list(counts), shares)
    say(f"""The loss fell from {loss(path[0], shares):.4f} to {loss(path[1], shares):.4f}. Repeat it, each time with
        the gradient at the new scores:""")
    lines(_table(list(counts), shares, path))
    say(f"""The steps get smaller as the gradient does. It becomes 0 when each probability is the share that counting
        gives, {_numbers(shares)}. There the loss is {_lowest(shares):.4f}, and it can't fall further: the next word
        is uncertain, whatever the model. The learning rate sets the size of a step. The loss after some steps:""")
    lines([
        "learning rate" + "".join(f"{'start' if n == 0 else f'step {n}':>9}" for n in SHOWN_STEPS),
        *(f"{rate:<13g}" + "".join(f"{value:9.4f}" for value in _losses(shares, rate)) for rate in RATES),
    ])  # fmt: skip
    say(f"""If it is too small, learning is slow. If it is too large, each step jumps over the lowest point. GPT-2
        learns in the same way, with {GPTConfig.of(GPT_CONFIGS["gpt2-124M"]).parameter_count()[0]:,} numbers instead
        of {len(shares)}. PyTorch computes all their gradients, from the loss back through every layer
        (backpropagation). Each step takes a few pages of the text, and the optimizer, AdamW, adapts the step to each
        number.""")
    suggest("""set LEARNING_RATE in src/intuition/gradient_descent.py to 3.0: fewer steps are enough. Then add 6.0 to
        RATES. Why does that loss never settle?""")


def _show_first_step(words: Sequence[str], shares: Vector) -> None:
    """Print the gradient at scores of 0, a check of it, and the step that follows from it."""
    start = [0.0] * len(words)
    probs, slopes, after = softmax(start), gradient(start, shares), step(start, shares, LEARNING_RATE)
    nudged = loss([NUDGE, *start[1:]], shares) - loss(start, shares)
    say("""The gradient says how fast the loss rises with each score. For softmax that is the probability minus the
        share of the word in the text. So the step goes the other way: score - learning rate x gradient.""")
    rows = zip(words, shares, probs, slopes, after, strict=True)
    lines(
        f"{word:<5} gradient {prob:.2f} - {share:.2f} = {slope:+.2f}   step: 0.00 - {LEARNING_RATE:g} x {slope:+.2f} = "
        f"{new:+.2f}"
        for word, share, prob, slope, new in rows
    )
    say(f"""A check: raise the score of "{words[0]}" by {NUDGE:g}, and the loss changes by {nudged:+.6f}, which is
        {nudged / NUDGE:+.2f} per point.""")


def _table(words: Sequence[str], shares: Vector, path: Sequence[Vector]) -> list[str]:
    heads = [f"score {word}" for word in words] + [f"p({word})" for word in words]
    rows = ["step " + "".join(f"{head:>12}" for head in heads) + f"{'loss':>10}"]
    for i, scores in enumerate(path):
        numbers = "".join(f"{number:12.3f}" for number in (*scores, *softmax(scores)))
        rows.append(f"{i:>4} {numbers}{loss(scores, shares):10.4f}")
    return rows


def _losses(shares: Vector, rate: float) -> list[float]:
    path = descend(shares, rate, max(SHOWN_STEPS))
    return [loss(path[n], shares) for n in SHOWN_STEPS]


def _lowest(shares: Vector) -> float:
    """The loss if each probability is the share: the entropy of the next word."""
    return -sum(share * math.log(share) for share in shares)


def _listed(counts: dict[str, int]) -> str:
    return " and ".join(f'"{word}" {"once" if n == 1 else f"{n} times"}' for word, n in counts.items())


def _numbers(values: Vector) -> str:
    return " and ".join(f"{value:.2f}" for value in values)
