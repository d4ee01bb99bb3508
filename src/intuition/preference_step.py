"""One step of direct preference optimization (DPO), every number shown.

Run it: python -m src.intuition preference-step
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from src.intuition.softmax import softmax
from src.intuition.terminal import heading, labelled, lines, say, suggest

BETA = 0.1
LEARNING_RATE = 5.0  # huge, so that one step is visible

Weights = Mapping[str, float]
Case = tuple[Sequence[str], Weights]

# The answers a tiny model chooses from (the first is chosen, the second rejected), and its initial weights.
DISTINCT_WORDS: Case = (("Paris", "Rome", "hm"), {"Paris": 0.0, "Rome": 1.0, "hm": 0.5})
SHARED_WORD: Case = (("Paris", "Paris Paris", "hm"), {"Paris": -1.0, "hm": 0.0})


def log_probabilities(answers: Sequence[str], weights: Weights) -> list[float]:
    """ln(probability) of each answer: the softmax of its score, which is the sum of its words' weights."""
    scores = [sum(weights[word] for word in answer.split()) for answer in answers]
    return [math.log(prob) for prob in softmax(scores)]


def implicit_rewards(now: Sequence[float], start: Sequence[float]) -> list[float]:
    """BETA times how far each log-probability has moved from the start."""
    return [BETA * (a - b) for a, b in zip(now, start, strict=True)]


def preference_loss(margin: float) -> float:
    """-ln(sigmoid(margin)), which is ln 2 at margin 0 and falls as the margin grows (Rafailov et al. 2023)."""
    return math.log1p(math.exp(-margin))


def gradient(answers: Sequence[str], weights: Weights, margin: float) -> dict[str, float]:
    """The gradient of the loss with respect to each weight.

    The sum that softmax divides by is the same for both answers, so it cancels. What remains is how often a word
    occurs in the chosen answer minus how often it occurs in the rejected one.
    """
    chosen, rejected = (Counter(answer.split()) for answer in answers[:2])
    pull = BETA / (1 + math.exp(margin))
    return {word: -pull * (chosen[word] - rejected[word]) for word in weights}


def step(answers: Sequence[str], weights: Weights) -> dict[str, float]:
    """The weights after one step of gradient descent from the start, where the margin is 0."""
    slopes = gradient(answers, weights, margin=0.0)
    return {word: weight - LEARNING_RATE * slopes[word] for word, weight in weights.items()}


def preference_step() -> None:
    """Show one DPO step that works as hoped, and one that makes the chosen answer less likely."""
    heading("preference-step", "what one DPO step does")
    say("""Two answers to one question, and a person preferred the first. DPO makes the chosen answer more likely
        relative to the rejected one. It measures both against the model it started from (the reference), so that
        the model does not drift too far. Our model is as small as possible: each word has a weight, an answer's
        score is the sum of its words' weights, and softmax turns scores into probabilities.

        We work with log-probabilities, ln(p): 0 is certain, more negative is less likely.""")
    labelled({
        "reward": f"of an answer: beta x (its ln p now - its ln p at the start), with beta = {BETA}",
        "margin": "the reward of the chosen answer - the reward of the rejected one",
        "loss": "-ln(sigmoid(margin)), with sigmoid(x) = 1 / (1 + exp(-x))",
    })  # fmt: skip
    say(f"""sigmoid(margin) is the probability that the model prefers the chosen answer, too. At the start nothing has
        moved: margin 0, probability 1/2, loss ln 2 = {preference_loss(0.0):.4f}.

        Now one step of gradient descent. Each word's weight has this gradient, with the word counted in both
        answers:""")
    lines(["-beta x (1 - sigmoid(margin)) x (count in chosen - count in rejected)"])
    say(f"""1 - sigmoid(margin) is 1/2 at the start. The step is the learning rate, {LEARNING_RATE:g}, times the
        gradient, with the sign reversed. {LEARNING_RATE:g} x {BETA} x 1/2 = {LEARNING_RATE * BETA / 2:g}, so each
        weight moves by {LEARNING_RATE * BETA / 2:g} x (count in chosen - count in rejected):""")
    _show_step(*DISTINCT_WORDS)
    say("""As hoped: the chosen answer went up, the rejected one down. But the loss sees only their difference.
        Here the answers share a word, and the rejected one says it twice:""")
    _show_step(*SHARED_WORD)
    say("""The margin grew and the loss fell, yet the chosen answer became less likely too. To push down the
        rejected answer, the step lowered the weight of the word they share, and an answer that nobody asked about
        gained what both lost. Real answers share most of their words. So don't worry if the log-probability of
        the chosen answers falls during a run; worry if the sampled answers get worse.""")
    suggest("""set BETA in src/intuition/preference_step.py to 0.2. Each weight moves twice as far, and the margin is
        four times as large. Which is the second place where beta multiplies?""")


def _show_step(answers: Sequence[str], weights: Weights) -> None:
    """Print weights, answers and loss before and after one step."""
    after = step(answers, weights)
    old, new = log_probabilities(answers, weights), log_probabilities(answers, after)
    rewards = implicit_rewards(new, old)
    margin = rewards[0] - rewards[1]
    chosen, rejected = (Counter(answer.split()) for answer in answers[:2])
    lines(
        f"weight of {word:<6}{weights[word]:6.2f} + {LEARNING_RATE * BETA / 2:g} x ({chosen[word]} - {rejected[word]}) "
        f"= {after[word]:.2f}"
        for word in weights
    )
    roles = ("chosen", "rejected", *("other" for _ in answers[2:]))
    table = [f"{'':<26}{'ln p before':>12}{'after':>8}{'reward':>9}   p before -> after"]
    for role, answer, a, b, reward in zip(roles, answers, old, new, rewards, strict=True):
        table.append(f"{role:<10}{answer:<16}{a:12.3f}{b:8.3f}{reward:+9.4f}   {math.exp(a):8.1%} -> {math.exp(b):.1%}")
    lines([*table, "", f"margin 0 -> {margin:.4f}   loss {preference_loss(0.0):.4f} -> {preference_loss(margin):.4f}"])
