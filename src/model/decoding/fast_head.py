"""The likeliest next tokens for half of the reading.

The head is the largest matrix that a token reads: 154 of 494 MB at 124M. Greedy and top-k sampling look at its few
largest logits only. So it is read in 16 bits, which says nearly what each logit is, and the rows that may have the
largest are read once more, in 32. n states, C channels, V vocabulary.
"""

import torch
from torch import Tensor

from src.model.gpt import GPTModel

PIECE = 256  # rows that are compared with their rounding at once
IN_CACHE = 32e6  # bytes: a smaller head stays in the processor's cache, where reading is no matter
MANY = 1 / 16  # of the vocabulary: to pick more rows than this out of the head takes longer than to read it


class HalfPrecisionHead:
    """A head (V, C) of 32 bits that is asked for its largest logits, and a copy of it in 16."""

    @staticmethod
    def pays(model: GPTModel) -> bool:
        """Whether the processor has a product for weights of 16 bits (FBGEMM's), and the model a head to gain by."""
        weight = model.wpe.weight
        size = model.config.vocab_size * model.config.d_model * weight.element_size()
        readable = type(model) is GPTModel and weight.device.type == "cpu" and weight.dtype == torch.float32
        return readable and size > IN_CACHE and torch.backends.quantized.engine in ("fbgemm", "x86")

    @torch.no_grad()
    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        lowest, highest = (float(end) for end in torch.aminmax(weight))
        largest = torch.finfo(torch.float16).max
        # Numbers that 16 bits do not reach would be cut down here, in the weight itself.
        fits = -largest <= lowest and highest <= largest
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight, None) if fits else None
        rounding = max(_norms(piece - piece.half()).max() for piece in weight.split(PIECE))
        # A sum of C products may be off by C units in the last place (Higham 2002, section 3.1), here and in the head.
        adding = 2 * weight.shape[1] * torch.finfo(torch.float32).eps / 2 * _norms(weight).max()
        self._error = float(rounding + adding)  # of a logit, per length of its state: |w s| <= |w| |s|

    def logits(self, states: Tensor, k: int) -> Tensor | None:
        """Logits (n, V) of states (n, C), of which the k largest are computed in 32 bits, the others in 16.

        None where it is quicker to read all of the head in 32.
        """
        half_precision = states.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        many = MANY * len(self._weight)
        if self._packed is None or half_precision or k > many:
            return None
        logits = torch.ops.quantized.linear_dynamic_fp16(states, self._packed)
        for row, state in zip(logits, states, strict=True):
            least = row.max() if k == 1 else row.topk(k, sorted=False).values.min()
            # Twice: that one may be as much too high as another is too low.
            near = (row >= least - 2 * self._error * _norms(state)).nonzero().flatten()
            if len(near) > many:
                return None
            row[near] = self._weight[near] @ state
        return logits


def _norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1)
