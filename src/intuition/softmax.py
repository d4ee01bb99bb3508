"""From scores to probabilities: the function that a language model uses in attention and at its output.

Run it: python -m src.intuition softmax
"""

import math
from collections.abc import Sequence

from src.intuition.terminal import bars, heading, labelled, lines, say, suggest

SCORES = {"blue": 2.0, "grey": 1.0, "green": -1.0}


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities that sum to 1, larger for larger scores: exp(score) / sum of exp(all scores).

    Subtracting the largest score first changes nothing and keeps exp from overflowing. A score of -inf gets 0.
    """
    largest = max(scores)
    powers = [math.exp(score - largest) for score in scores]
    return [power / sum(powers) for power in powers]


def show_softmax() -> None:
    """Show softmax on three scores, and what adding to them and multiplying them does."""
    heading("softmax", "from scores to probabilities")
    scores = list(SCORES.values())
    say("""A model gives each possible next token a score, any number at all. We want probabilities: none below 0,
        and a sum of 1. Softmax takes two steps. First it computes exp(score), which is never negative and grows by
        a factor of about 2.7 for each extra point. Then it divides each result by the sum of all.""")
    total = sum(map(math.exp, scores))
    lines(
        f"{name:<6} score {score:4.1f}   exp({score:4.1f}) = {math.exp(score):5.2f}   "
        f"{math.exp(score):5.2f} / {total:.2f} = {prob:.3f}"
        for (name, score), prob in zip(SCORES.items(), softmax(scores), strict=True)
    )
    bars(dict(zip(SCORES, softmax(scores), strict=True)))
    say("Only differences matter. Add 100 to every score, and the probabilities stay the same:")
    shifted = [score + 100 for score in scores]
    labelled({
        "scores": "   ".join(f"{score:6.1f}" for score in shifted),
        "softmax": "   ".join(f"{prob:6.3f}" for prob in softmax(shifted)),
    })  # fmt: skip
    say("Multiplying is different. With all scores doubled:")
    bars(dict(zip(SCORES, softmax([2 * score for score in scores]), strict=True)))
    say("Larger differences make the winner more certain. The demonstration `sampling` turns that into a dial.")
    suggest("""set a score to -math.inf in src/intuition/softmax.py. That is how a model is kept from choosing
        something, and the demonstration `causal-mask` depends on it.""")
