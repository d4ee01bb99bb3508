"""The likeliest next tokens for half of the reading.

The head is the largest matrix that a token reads: 154 of 494 MB at 124M. Greedy and top-k sampling look at its few
largest logits only. So it is read in 16 bits, which says nearly what each logit is, and for those that may be among the
largest once more in 32. n states, C channels, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from src.model.gpt import GPTModel

PIECE = 4096  # rows that are compared with their rounding at once
IN_CACHE = 32e6  # bytes: a smaller head is at hand for the processor anyway
MANY = 1 / 16  # of the vocabulary: to pick more rows than this out of the head takes longer than to read it


class Shortlist:
    """A head (V, C) whose largest logits are exact. It holds the weight, and a copy of it in 16 bits."""

    @staticmethod
    def pays(model: GPTModel) -> bool:
        """Whether this processor multiplies in 16 bits, and the model's head is one to gain by."""
        weight = model.wpe.weight
        size = model.config.vocab_size * model.config.d_model * weight.element_size()
        plain = type(model) is GPTModel and weight.device.type == "cpu" and weight.dtype == torch.float32
        return plain and size > IN_CACHE and torch.backends.quantized.engine in ("fbgemm", "x86")

    @torch.no_grad()
    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        rounding = max(_norms(piece - piece.half()).max() for piece in weight.split(PIECE))
        # A sum of C products may be off by C units in the last place (Higham 2002, section 3.1), here and in the head.
        adding = 2 * weight.shape[1] * torch.finfo(torch.float32).eps / 2 * _norms(weight).max()
        self._error = float(rounding + adding)  # of a logit, for a state of length 1: Cauchy and Schwarz
        # Numbers that 16 bits do not reach would be cut down here, in the weight itself.
        fits = math.isfinite(self._error)
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight, None) if fits else None

    def logits(self, states: Tensor, k: int) -> Tensor:
        """Logits (n, V) of states (n, C): in each row the k largest are those of the head, the others nearly so."""
        if self._packed is None:
            return F.linear(states, self._weight)
        logits = torch.ops.quantized.linear_dynamic_fp16(states, self._packed)
        for row, state in zip(logits, states, strict=True):
            least = row.max() if k == 1 else row.topk(min(k, len(row)), sorted=False).values.min()
            near = (row >= least - 2 * self._error * _norms(state)).nonzero().flatten()
            if len(near) > MANY * len(row):
                torch.mv(self._weight, state, out=row)
            else:
                row[near] = self._weight[near] @ state
        return logits


def _norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1)
