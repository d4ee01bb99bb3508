"""Device and precision: chosen once per script, then passed as a Runtime."""

import ctypes
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from src.common.machine import usable_cpus
from src.distributed.environment import local_rank
from src.distributed.processes import Processes, Strategy, join

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h
MIN_BF16_SPEEDUP = 1.5  # on a CPU or MPS; a smaller speedup is not worth the 8-bit mantissa
NO_BF16 = "this processor has no bf16 arithmetic"
WIDEST_TRIAL = 768  # takes 1.5 s on two cores; a wider model gains no less


@dataclass(frozen=True)
class Runtime:
    """A device and a precision ("fp32", "bf16" or "fp16"); `reason`: why this precision was chosen.

    strategy: how several processes share the model.
    """

    device: torch.device
    precision: str
    reason: str
    processes: Processes = Processes()
    strategy: Strategy = "none"

    @property
    def model_device(self) -> torch.device | None:
        """The device for the model before training. None: leave it, because FSDP moves only each process's part."""
        return None if self.strategy == "fsdp" else self.device

    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass. Weights stay float32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision])

    def synchronise(self) -> None:
        """Wait until the device is done, so a clock read next measures its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def choose_runtime(device: str = "auto", precision: str = "auto", *, packed_width: int | None = None) -> Runtime:
    """The runtime for --device and --precision; "auto" picks the fastest one of this machine.

    Also limits PyTorch to the CPUs that this process may use.

    packed_width: the width of a model that trains on packed sequences, whose batches differ in their number of tokens.
    On a CPU, the first bf16 product of each new shape has a set-up cost, which weighs most in a narrow model. The trial
    that "auto" makes includes it.
    Raises ValueError for a device that this machine does not have, or a precision that it cannot train in.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"--precision must be one of auto, {', '.join(PRECISIONS)}, got {precision!r}")
    _limit_threads()
    chosen = _choose_device(device)
    processes = join(chosen)
    if precision == "auto":
        # A trial may decide, and its result could differ between processes.
        precision, reason = processes.from_first(_choose_precision(chosen, packed_width))
    else:
        reason = _check_precision(precision, chosen)
    return Runtime(chosen, precision, reason, processes)


def _check_precision(precision: str, device: torch.device) -> str:
    """The reason to report for a requested precision. Raises ValueError if the device cannot train in it."""
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"--precision fp16 needs a CUDA device, this is {device.type}; pass --precision auto")
    if precision == "bf16" and device.type in ("cuda", "cpu") and not has_bf16_products(device):
        if device.type == "cuda":
            raise ValueError("--precision bf16: this GPU has no bf16 arithmetic; pass --precision auto")
        return f"as requested; {NO_BF16}, so fp32 is many times as fast"
    return "as requested"


def has_bf16_products(device: torch.device) -> bool:
    """Whether PyTorch has kernels for matrix products in bf16 on a device.

    Other CPUs, such as those with AVX2 and no AVX-512, take 40 times as long for them as in fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return False  # MPS: it depends on the version of macOS


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed the random numbers of a step (dropout) from (seed, step), so a resumed run draws the same ones.

    Each process of a run draws its own.
    """
    torch.manual_seed((seed * 1_000_003 + step + rank * 1_000_000_007) % 2**63)


def keep_freed_memory() -> None:
    """Make malloc reuse freed memory instead of returning it to the system. Linux with glibc only; elsewhere a no-op.

    Each training step frees and allocates the same hundreds of megabytes. The system would hand them out again page by
    page, filled with zeros: a tenth of a step's time at 124M parameters.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _limit_threads() -> None:
    """Use no more threads than the container has CPUs. PyTorch itself starts one for each CPU of the host."""
    if usable_cpus() < torch.get_num_threads():
        torch.set_num_threads(usable_cpus())


def _choose_device(name: str) -> torch.device:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available.get(name.partition(":")[0], False):
        have = ", ".join(kind for kind, there in available.items() if there)
        raise ValueError(f"--device {name}: not available on this machine (available: {have}); pass --device auto")
    if name == "cuda" and (index := local_rank()):
        return torch.device(name, index)
    return torch.device(name)


def _choose_precision(device: torch.device, packed_width: int | None) -> tuple[str, str]:
    """(precision, reason). On a CPU or MPS, a trial decides whether bf16 pays."""
    if device.type == "cuda":
        if has_bf16_products(device):
            return "bf16", "this GPU has bf16 arithmetic"
        return "fp16", "this GPU has no bf16 arithmetic"
    if device.type == "cpu" and not has_bf16_products(device):
        return "fp32", NO_BF16
    try:
        gain = _bf16_gain(device, packed_width)
    except RuntimeError:
        return "fp32", "bf16 does not work on this machine"
    if gain >= MIN_BF16_SPEEDUP:
        return "bf16", f"a trial step ran {gain:.1f} times as fast as in fp32"
    return "fp32", f"in bf16 a trial step ran only {gain:.1f} times as fast, below {MIN_BF16_SPEEDUP}"


def _bf16_gain(device: torch.device, packed_width: int | None) -> float:
    """The speedup of a small training step in bf16 over fp32: best of ten each, alternating.

    packed_width: each round has another number of tokens, about as many as a batch of conversations.
    """
    width = min(packed_width or 256, WIDEST_TRIAL)
    lengths = range(256, 246, -1) if packed_width else [512] * 10
    wide, narrow = nn.Linear(width, 4 * width).to(device), nn.Linear(4 * width, width).to(device)
    norm, table = nn.LayerNorm(width).to(device), nn.Embedding(8192, width).to(device)

    def step(runtime: Runtime, tokens: int) -> None:
        ids = torch.arange(tokens, device=device)
        with runtime.autocast():
            x = table(ids)
            x = x + narrow(F.gelu(wide(norm(x)), approximate="tanh"))
            loss = F.cross_entropy(F.linear(norm(x), table.weight).float(), ids)
        loss.backward()
        runtime.synchronise()

    trials = [Runtime(device, precision, "trial") for precision in ("fp32", "bf16")]
    rounds = [[_seconds(partial(step, trial, tokens)) for trial in trials] for tokens in lengths]
    fp32_s, bf16_s = (min(times) for times in zip(*rounds, strict=True))
    return fp32_s / bf16_s


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
