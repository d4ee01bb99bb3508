"""Temperature, top-k and top-p on one distribution. Run it: python -m src.intuition sampling"""

from collections.abc import Sequence

from src.intuition.softmax import softmax
from src.intuition.terminal import bars, heading, say, suggest

# Scores of the tokens that may follow "The sky is".
SCORES = {"blue": 3.0, "clear": 2.4, "grey": 2.0, "dark": 1.6, "falling": 0.6, "green": -0.2, "cheese": -1.5}


def distribution(
    scores: Sequence[float], temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> list[float]:
    """The probability of each token after temperature, top_k and top_p, in this order; 0 if it is ruled out.

    Temperature 0 keeps only the most likely token. top_k keeps the k most likely. top_p keeps the most likely until
    their probabilities add up to top_p, including the one that crosses it. The rest is rescaled to sum to 1.
    """
    best_first = sorted(range(len(scores)), key=lambda i: -scores[i])
    if temperature == 0:
        kept_ids, probs = best_first[:1], [1.0]
    else:
        kept_ids = best_first[:top_k]
        probs = softmax([scores[i] / temperature for i in kept_ids])
    if top_p is not None and top_p < 1:  # 1 keeps all tokens; rounding must not drop any
        n = sum(sum(probs[:i]) < top_p for i in range(len(probs)))  # tokens with less than top_p before them
        kept_ids, probs = kept_ids[:n], [prob / sum(probs[:n]) for prob in probs[:n]]
    result = [0.0] * len(scores)
    for i, prob in zip(kept_ids, probs, strict=True):
        result[i] = prob
    return result


def sampling() -> None:
    """Show what temperature, top-k and top-p do to one distribution."""
    heading("sampling", "how the next token is drawn")
    say("""A model does not say which token comes next, it says how likely each one is. The next token is drawn at
        random, as with a loaded die. Here is what may follow "The sky is":""")
    _show()
    say(""""cheese" is unlikely, but draw a thousand tokens and you get it now and then, and one bad token can
        spoil the rest of a text. Three dials make the die safer.

        Temperature divides the scores before softmax. Below 1, likely tokens get even likelier:""")
    _show(temperature=0.5)
    say("""Above 1, the probabilities move closer together. The text gets more varied, and sooner or later it is
        nonsense:""")
    _show(temperature=2.0)
    say("Temperature 0 always takes the most likely token, so it gives the same text every time (greedy decoding).")
    _show(temperature=0)
    say("top-k keeps the k most likely tokens and rules out the others (shown as a dash). With k = 3:")
    _show(top_k=3)
    say("""But 3 is too many when only one token makes sense, and too few when twenty do. top-p keeps the most
        likely tokens until their probabilities add up to p, so their number adapts. With p = 0.9:""")
    _show(top_p=0.9)
    sure = distribution([2 * score for score in SCORES.values()], top_p=0.9)
    say(f"""{_kept(distribution(list(SCORES.values()), top_p=0.9))} tokens are left. If the model
        were more certain, with all scores doubled, the same p would leave {_kept(sure)}.""")
    say("""All together, in the order that chat.py applies them: temperature, then top-k, then top-p. Temperature
        0.7, k = 5, p = 0.8:""")
    _show(temperature=0.7, top_k=5, top_p=0.8)
    suggest("""set the score of "blue" in SCORES in src/intuition/sampling_bars.py to 5.0. How many tokens does top-p
        keep now, and how many does top-k?""")


def _kept(probs: Sequence[float]) -> int:
    return sum(prob > 0 for prob in probs)


def _show(temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> None:
    probs = distribution(list(SCORES.values()), temperature, top_k, top_p)
    bars(dict(zip(SCORES, probs, strict=True)))
