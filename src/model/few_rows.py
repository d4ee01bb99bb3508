"""Products of a large fp32 matrix with a few rows: decoding reads every matrix once per token.

Such a product should take no longer than reading the matrix. On AMD's processors, the MKL in PyTorch computes it on one
thread, in up to three times as long. A batch of products of parts of the matrix runs at the speed of memory there.
n rows, C channels in, O channels out.
"""

import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

PARTS = 16  # one thread or more each; 2, 4 and 8 were as fast on two threads
MAX_ROWS = 3  # from four rows on, F.linear gains
MIN_ELEMENTS = 2**19  # a smaller matrix stays in the processor's cache


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: (..., C) and (O, C) to (..., O), by the faster kernel if x has few rows."""
    n_rows = x.numel() // x.shape[-1]
    fp32_on_cpu = weight.is_cpu and weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if n_rows <= MAX_ROWS and weight.numel() >= MIN_ELEMENTS and fp32_on_cpu and parts_are_faster():
        return linear_in_parts(x.reshape(n_rows, -1), weight, bias).view(*x.shape[:-1], -1)
    if n_rows == 1 and bias is None:  # a matrix-vector product is a third faster than one with a one-row matrix
        return F.linear(x.flatten(), weight).view(*x.shape[:-1], -1)
    return F.linear(x, weight, bias)


def linear_in_parts(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of x (n, C), as a batch of products, one for each part of the matrix."""
    n_rows, C = x.shape
    in_parts = len(weight) // PARTS * PARTS
    parts = weight[:in_parts].view(PARTS, -1, C)
    y = torch.bmm(parts, x.t().expand(PARTS, C, n_rows)).view(in_parts, n_rows)
    if in_parts < len(weight):
        y = torch.cat([y, weight[in_parts:] @ x.t()])
    y = y.t().contiguous()
    return y if bias is None else y + bias


@cache
def parts_are_faster() -> bool:
    """Whether PyTorch computes with MKL on an AMD processor."""
    cpuinfo = Path("/proc/cpuinfo")
    processor = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else platform.processor()
    return torch.backends.mkl.is_available() and "AuthenticAMD" in processor
