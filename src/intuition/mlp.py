"""The MLP of a layer: what it computes at one position. Run it: python -m src.intuition mlp"""

import math
from collections.abc import Sequence

from src.intuition.attention_by_hand import dot
from src.intuition.terminal import heading, lines, say, suggest
from src.model.config import GPT_CONFIGS, GPTConfig

# What attention has gathered at a position: 1 if "not" came before, and 1 if "good" did.
TEXTS = {"-": (0, 0), "good": (0, 1), "not": (1, 0), "not good": (1, 1)}
# Two hidden units, each with a weight for "not" and one for "good", a bias, and an output weight.
WEIGHTS = ((-4.0, 4.0), (4.0, 4.0))
BIASES = (-2.0, -6.0)
OUTPUT_WEIGHTS = (0.5, -0.5)

Vector = Sequence[float]


def gelu(x: float) -> float:
    """About x if x is positive, about 0 if it is negative, with a smooth transition (GPT-2's form, with tanh)."""
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def hidden_units(x: Vector) -> list[float]:
    """The first linear layer: the dot product of x with the weights of each unit, plus its bias."""
    return [dot(x, weights) + bias for weights, bias in zip(WEIGHTS, BIASES, strict=True)]


def mlp_output(x: Vector) -> float:
    """The whole MLP: linear layer, GELU, linear layer."""
    return dot([gelu(unit) for unit in hidden_units(x)], OUTPUT_WEIGHTS)


def mlp() -> None:
    """Show an MLP combine two facts at one position, and why it needs an activation function."""
    heading("mlp", "what happens at one position")
    say("""Attention carries information from position to position. After it, in each layer, comes the MLP. It works
        on each position by itself: from the vector at that position it computes another vector, and adds the two.
        Here attention has stored in the vector whether "not" and "good" came before. We want the MLP to compute how
        much praise there is: +1 after "good", -1 after "not good", 0 otherwise.""")
    say("""One linear layer can't. It adds up what each number contributes: if "good" alone gives +1 and "not" alone
        0, both together give +1 + 0 = +1. So the MLP has two linear layers with an activation function between them.
        The first layer computes hidden units. Each looks for one pattern:""")
    patterns = ('"good" without "not"', '"not" and "good"')
    rows = zip(WEIGHTS, BIASES, OUTPUT_WEIGHTS, patterns, strict=True)
    lines(
        f"unit {i}: {w[0]:>2g} x not + {w[1]:g} x good - {-bias:g}   {pattern:<20}   output weight {output_weight:>4g}"
        for i, (w, bias, output_weight, pattern) in enumerate(rows, 1)
    )
    say(f"""The activation function, GELU, keeps positive numbers and makes negative ones nearly 0: gelu(2) =
        {_rounded(gelu(2))}, gelu(-2) = {_rounded(gelu(-2))}, gelu(-6) = {_rounded(gelu(-6))}. So a unit is active
        only if its pattern is there. The second layer multiplies each result by its unit's output weight, and adds
        up:""")
    lines([
        f"{'before':<13}{'(not, good)':<13}{'unit 1':>7}{'unit 2':>7}{'after GELU':>15}{'output':>9}{'no GELU':>10}",
        *(_row(text, x) for text, x in TEXTS.items()),
    ])  # fmt: skip
    say("""The last column leaves GELU out. Two linear layers in a row are one linear layer, and in this one "good"
        makes no difference. With GELU, the units are if-then rules, and their sum is nearly what we wanted.""")
    gpt2 = GPTConfig.of(GPT_CONFIGS["gpt2-124M"])
    in_mlp, in_attention = 2 * gpt2.d_model * gpt2.mlp_width, 4 * gpt2.d_model**2
    say(f"""The result is added to the vector, so what was there before stays. GPT-2's vectors have {gpt2.d_model}
        numbers and its MLPs {gpt2.mlp_width:,} hidden units, with weights that are learned. In each layer,
        {in_mlp / 1e6:.1f} million of the {(in_mlp + in_attention) / 1e6:.1f} million weights are in the MLP. Much of
        what a model knows is in these rules: if the vector looks like this, add that (Geva et al. 2021).""")
    suggest("""add "not not good": (2, 1) to TEXTS in src/intuition/mlp.py. What does the MLP make of it? Which third
        unit would fix that?""")


def _rounded(number: float) -> str:
    return f"{round(number, 2) + 0.0:.2f}"  # + 0.0 turns -0.0 into 0.0


def _row(text: str, x: Vector) -> str:
    units = hidden_units(x)
    after = " ".join(f"{_rounded(gelu(unit)):>6}" for unit in units)
    linear = dot(units, OUTPUT_WEIGHTS)
    numbers = f"({x[0]:g}, {x[1]:g})"
    return f"{text:<13}{numbers:<13}{units[0]:7.2f}{units[1]:7.2f}{after:>15}{mlp_output(x):+9.2f}{linear:+10.2f}"
