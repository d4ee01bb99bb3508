"""Exact top-k logits at half the memory traffic: scan the head in fp16, recompute the candidates in fp32.

The head is the largest matrix that decoding reads: 154 of 494 MB per token at 124M. Greedy and top-k sampling need only
its few largest logits. n hidden states, C channels, V vocabulary.
"""

import torch
from torch import Tensor

from src.model.gpt import GPTModel

ROWS_PER_CHUNK = 256  # rows whose rounding error is measured at once
CACHE_BYTES = 32e6  # a smaller head stays in the processor's cache, where memory bandwidth is not the bottleneck
MAX_RECOMPUTED_SHARE = 1 / 16  # of the vocabulary: gathering more rows takes longer than a full product in fp32


class HalfPrecisionHead:
    """An fp32 head (V, C) and its fp16 copy, which finds the largest logits."""

    @staticmethod
    def is_worthwhile(model: GPTModel) -> bool:
        """Whether the processor has an fp16 kernel (FBGEMM's), and the head is large enough to gain from it."""
        weight = model.wpe.weight
        head_bytes = model.config.vocab_size * model.config.d_model * weight.element_size()
        supported = type(model) is GPTModel and weight.device.type == "cpu" and weight.dtype == torch.float32
        return supported and head_bytes > CACHE_BYTES and torch.backends.quantized.engine in ("fbgemm", "x86")

    @torch.no_grad()
    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        lowest, highest = (float(end) for end in torch.aminmax(weight))
        fp16_max = torch.finfo(torch.float16).max
        # Packing would clamp values beyond fp16's range, also in the fp32 weight itself.
        in_range = -fp16_max <= lowest and highest <= fp16_max
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight, None) if in_range else None
        rounding_error = max(_norms(chunk - chunk.half()).max() for chunk in weight.split(ROWS_PER_CHUNK))
        # Summing C products has an error of at most C unit roundoffs (Higham 2002, section 3.1), in both products.
        unit_roundoff = torch.finfo(torch.float32).eps / 2
        summation_error = 2 * weight.shape[1] * unit_roundoff * _norms(weight).max()
        # The error of a logit is at most this times the norm of its state, because |w s| <= |w| |s|.
        self._error_bound = float(rounding_error + summation_error)

    def logits(self, states: Tensor, k: int) -> Tensor | None:
        """Logits (n, V) of hidden states (n, C): the k largest as in fp32, the others by the fp16 copy.

        None if the copy cannot be used, or if a full product is faster.
        """
        half_precision = states.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        max_recomputed = MAX_RECOMPUTED_SHARE * len(self._weight)
        if self._packed is None or half_precision or k > max_recomputed:
            return None
        logits = torch.ops.quantized.linear_dynamic_fp16(states, self._packed)
        for row, state in zip(logits, states, strict=True):
            kth_largest = row.max() if k == 1 else row.topk(k, sorted=False).values.min()
            # Twice the bound: one logit may be too high while another is too low.
            candidates = (row >= kth_largest - 2 * self._error_bound * _norms(state)).nonzero().flatten()
            if len(candidates) > max_recomputed:
                return None
            row[candidates] = self._weight[candidates] @ state
        return logits


def _norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1)
