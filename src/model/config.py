"""The validated config that a model is built from, and the table of model sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from src.common.checks import is_count, is_number

ACTIVATIONS = ("gelu_tanh", "gelu", "relu")
_SIZES = ("vocab_size", "context_length", "d_model", "n_heads", "n_layers")  # the entries that a config must have


@dataclass(frozen=True)
class GPTConfig:
    """The architecture of a model. Lengths in tokens, widths in channels.

    `d_ff` is the width inside the MLP (None: 4 * d_model). GPT-2 was trained with the tanh form of GELU; the other
    activations exist for fine-tunes that changed it.

    Raises ValueError naming every impossible value at once.
    """

    vocab_size: int
    context_length: int
    d_model: int
    n_heads: int
    n_layers: int
    dropout: float = 0.0
    d_ff: int | None = None
    activation: str = "gelu_tanh"
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        sizes = _SIZES if self.d_ff is None else (*_SIZES, "d_ff")
        problems = [
            f"{name} must be a whole number of at least 1, got {getattr(self, name)!r:.100}"
            for name in sizes
            if not is_count(getattr(self, name))
        ]
        if not problems and self.d_model % self.n_heads:
            problems.append(f"n_heads must divide d_model, got d_model {self.d_model} and n_heads {self.n_heads}")
        if not is_number(self.dropout) or not 0.0 <= self.dropout < 1.0:
            problems.append(f"dropout must be in [0, 1), got {self.dropout!r:.100}")
        if not is_number(self.layer_norm_epsilon) or not 0.0 < self.layer_norm_epsilon < 1.0:
            problems.append(f"layer_norm_epsilon must be in (0, 1), got {self.layer_norm_epsilon!r:.100}")
        if self.activation not in ACTIVATIONS:
            problems.append(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r:.100}")
        if problems:
            raise ValueError("model config: " + "; ".join(problems))

    @classmethod
    def of(cls, config: "Mapping[str, Any] | GPTConfig") -> "GPTConfig":
        """A GPTConfig from a mapping like those of GPT_CONFIGS. Raises ValueError naming an unknown or missing key."""
        if isinstance(config, GPTConfig):
            return config
        known = {field.name for field in fields(cls)}
        for key in config:
            if key not in known:
                hint = get_close_matches(str(key), known, n=1)
                raise ValueError(
                    f"model config: unknown key {key!r}" + (f", did you mean {hint[0]!r}?" if hint else "")
                )
        missing = {*_SIZES} - set(config)
        if missing:
            raise ValueError(f"model config: missing {', '.join(sorted(missing))}")
        return cls(**config)

    @property
    def mlp_width(self) -> int:
        """The number of hidden units of the MLP: d_ff, or GPT-2's 4 * d_model."""
        return self.d_ff or 4 * self.d_model

    def parameter_count(self) -> tuple[int, int]:
        """(all parameters, those outside the token and position embeddings). The tied head has none of its own."""
        C, hidden = self.d_model, self.mlp_width
        attention = (C * 3 * C + 3 * C) + (C * C + C)  # c_attn and c_proj, each with its bias
        mlp = (C * hidden + hidden) + (hidden * C + C)
        layer_norm = 2 * C
        body = self.n_layers * (attention + mlp + 2 * layer_norm) + layer_norm
        embeddings = (self.vocab_size + self.context_length) * C
        return embeddings + body, body


def _size(d_model: int, n_heads: int, n_layers: int, context_length: int, dropout: float = 0.1) -> dict[str, Any]:
    return {
        "vocab_size": 50257,
        "context_length": context_length,
        "d_model": d_model,
        "n_heads": n_heads,
        "n_layers": n_layers,
        "dropout": dropout,
    }


# GPT-2: Radford et al. 2019, table 2, with the head counts of the released models.
# GPT-3: Brown et al. 2020, table 2.1. In two rows heads x head size differs from d_model (1.3B: 24 x 128 against 2048,
# 13B: 40 x 128 against 5140). Both keep the table's d_model and layers, with the nearest head count that fits.
GPT_CONFIGS: dict[str, dict[str, Any]] = {
    "micro": _size(128, 4, 2, 256, dropout=0.0),
    "tiny": _size(256, 4, 4, 256, dropout=0.0),
    "gpt2-124M": _size(768, 12, 12, 1024),
    "gpt2-355M": _size(1024, 16, 24, 1024),
    "gpt2-774M": _size(1280, 20, 36, 1024),
    "gpt2-1558M": _size(1600, 25, 48, 1024),
    "gpt3-125M": _size(768, 12, 12, 2048),
    "gpt3-350M": _size(1024, 16, 24, 2048),
    "gpt3-760M": _size(1536, 16, 24, 2048),
    "gpt3-1.3B": _size(2048, 16, 24, 2048),
    "gpt3-2.7B": _size(2560, 32, 32, 2048),
    "gpt3-6.7B": _size(4096, 32, 32, 2048),
    "gpt3-13B": _size(5140, 20, 40, 2048),
    "gpt3-175B": _size(12288, 96, 96, 2048),
}
