"""Device, precision and seed: which are chosen, why, and which are refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from src.runtime import (
    MIN_BF16_SPEEDUP,
    Runtime,
    _bf16_gain,
    choose_runtime,
    has_bf16_products,
    keep_freed_memory,
    seed_step,
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Pretends to be another machine; no tensor is moved to its devices."""

    def pretend(
        *,
        cuda: bool = False,
        mps: bool = False,
        bf16: bool = False,
        cpu_bf16: bool = True,
        gain: float | Exception = 1.0,
    ) -> None:
        def measure(device: torch.device, packed_width: int | None) -> float:
            if isinstance(gain, Exception):
                raise gain
            return gain

        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: cpu_bf16)
        monkeypatch.setattr("src.runtime._bf16_gain", measure)

    pretend()
    return pretend


@pytest.mark.parametrize(
    ("here", "device"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_takes_the_fastest_available_device(machine, here: dict, device: str) -> None:
    machine(**here)
    assert choose_runtime("auto", "fp32").device.type == device
    assert choose_runtime("cpu", "fp32").device.type == "cpu"


@pytest.mark.parametrize(("cpus", "threads"), [(2, 2), (8, 4)])
def test_pytorch_uses_no_more_threads_than_cpus(monkeypatch: pytest.MonkeyPatch, cpus: int, threads: int) -> None:
    monkeypatch.setattr("src.runtime.usable_cpus", lambda: cpus)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    choose_runtime("cpu", "fp32")
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert found == threads


@pytest.mark.parametrize(
    ("here", "asked", "message"),
    [
        ({}, "cuda", "--device cuda: not available on this machine (available: cpu); pass --device auto"),
        (
            {"cuda": True},
            "mps",
            "--device mps: not available on this machine (available: cpu, cuda); pass --device auto",
        ),
        ({}, "tpu", "--device tpu: not available on this machine (available: cpu); pass --device auto"),
    ],
)
def test_an_unavailable_device_is_refused(machine, here: dict, asked: str, message: str) -> None:
    machine(**here)
    with pytest.raises(ValueError) as refused:
        choose_runtime(asked)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("here", "asked", "message"),
    [
        ({}, "fp16", "--precision fp16 needs a CUDA device, this is cpu; pass --precision auto"),
        ({"mps": True}, "fp16", "--precision fp16 needs a CUDA device, this is mps; pass --precision auto"),
        ({"cuda": True}, "bf16", "--precision bf16: this GPU has no bf16 arithmetic; pass --precision auto"),
        ({}, "half", "--precision must be one of auto, fp32, bf16, fp16, got 'half'"),
    ],
)
def test_an_unsupported_precision_is_refused(machine, here: dict, asked: str, message: str) -> None:
    machine(**here)
    with pytest.raises(ValueError) as refused:
        choose_runtime("auto", asked)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("here", "asked"),
    [
        ({}, "fp32"),
        ({}, "bf16"),
        ({"cuda": True}, "fp16"),
        ({"cuda": True, "bf16": True}, "bf16"),
        ({"mps": True}, "bf16"),
    ],
)
def test_an_explicit_precision_needs_no_trial(machine, here: dict, asked: str) -> None:
    machine(**here, gain=AssertionError("tried out"))
    chosen = choose_runtime("auto", asked)
    assert (chosen.precision, chosen.reason) == (asked, "as requested")


@pytest.mark.parametrize("here", [{}, {"mps": True}])
def test_a_trial_decides_between_fp32_and_bf16(machine, here: dict) -> None:
    machine(**here, gain=MIN_BF16_SPEEDUP)
    chosen = choose_runtime()
    assert (chosen.precision, chosen.reason) == (
        "bf16",
        f"a trial step ran {MIN_BF16_SPEEDUP:.1f} times as fast as in fp32",
    )
    machine(**here, gain=MIN_BF16_SPEEDUP - 0.06)
    chosen = choose_runtime()
    assert chosen.precision == "fp32"
    assert chosen.reason == f"in bf16 a trial step ran only {MIN_BF16_SPEEDUP - 0.06:.1f} times as fast, below 1.5"


def test_fp32_is_the_fallback_if_bf16_does_not_work(machine) -> None:
    machine(gain=RuntimeError("no kernel"))
    assert choose_runtime() == Runtime(torch.device("cpu"), "fp32", "bf16 does not work on this machine")


def test_a_cpu_without_bf16_uses_fp32_without_a_trial(machine) -> None:
    machine(cpu_bf16=False, gain=AssertionError("tried out"))
    assert choose_runtime() == Runtime(torch.device("cpu"), "fp32", "this processor has no bf16 arithmetic")
    reason = "as requested; this processor has no bf16 arithmetic, so fp32 is many times as fast"
    assert choose_runtime(precision="bf16") == Runtime(torch.device("cpu"), "bf16", reason)


def test_bf16_products_need_kernels(machine) -> None:
    cpu, cuda, mps = map(torch.device, ("cpu", "cuda", "mps"))
    machine(cuda=True, bf16=True, cpu_bf16=False)
    assert [has_bf16_products(device) for device in (cpu, cuda, mps)] == [False, True, False]
    machine(cuda=True, bf16=False, cpu_bf16=True)
    assert [has_bf16_products(device) for device in (cpu, cuda, mps)] == [True, False, False]


def test_a_gpu_uses_bf16_if_supported_and_fp16_otherwise(machine) -> None:
    machine(cuda=True, bf16=True, gain=AssertionError("tried out"))
    assert choose_runtime().precision == "bf16"
    machine(cuda=True, bf16=False, gain=AssertionError("tried out"))
    chosen = choose_runtime()
    assert (chosen.precision, chosen.reason) == ("fp16", "this GPU has no bf16 arithmetic")


def test_trial_compares_the_best_of_ten_steps_each(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 8.0, 4.0, 2.0, *[9.0, 8.0] * 8])  # fp32 and bf16 in turn; the second round is undisturbed
    monkeypatch.setattr("src.runtime._seconds", lambda run: next(seconds))
    assert _bf16_gain(torch.device("cpu"), packed_width=None) == 2.0
    assert next(seconds, None) is None


@pytest.mark.parametrize(
    ("packed_width", "shapes"),
    [(None, [(512, 1024)] * 2), (32, [(256, 128), (255, 128)]), (1600, [(256, 3072), (255, 3072)])],
)
def test_trial_steps_run_in_both_precisions(
    monkeypatch: pytest.MonkeyPatch, packed_width: int | None, shapes: list[tuple[int, int]]
) -> None:
    """For packed sequences, no round finds a bf16 product that an earlier one has set up."""
    seen = []
    gelu = torch.nn.functional.gelu

    def recording(x: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append((tuple(x.shape), x.dtype))
        return gelu(x, **options)

    monkeypatch.setattr(torch.nn.functional, "gelu", recording)
    two_rounds = iter([True] * 4)
    monkeypatch.setattr("src.runtime._seconds", lambda run: next(two_rounds, False) and run() or 1.0)
    assert _bf16_gain(torch.device("cpu"), packed_width) == 1.0
    assert seen == [(shape, dtype) for shape in shapes for dtype in (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision_with_float32_weights(precision: str, dtype: torch.dtype) -> None:
    chosen = choose_runtime("cpu", precision)
    layer = torch.nn.Linear(4, 4)
    with chosen.autocast():
        out = layer(torch.ones(1, 4))
    out.sum().backward()
    assert out.dtype == dtype
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32
    chosen.synchronise()


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_synchronise_waits_for_the_device(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(device.type))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    Runtime(torch.device(kind), "fp32", "").synchronise()
    assert waited == [kind]


def dropped(seed: int, step: int) -> list[bool]:
    """Which of 64 values dropout zeroes in a step."""
    seed_step(seed, step)
    return (torch.nn.functional.dropout(torch.ones(64)) == 0).tolist()


def test_dropout_is_a_function_of_seed_and_step() -> None:
    first = dropped(1, 0)
    torch.rand(1000)  # earlier draws must not matter
    assert dropped(1, 0) == first
    others = [dropped(seed, step) for seed, step in ((1, 1), (2, 0), (0, 0), (1, 2), (2**63 - 1, 10**9))]
    assert first not in others
    assert len({tuple(mask) for mask in others}) == len(others)


def test_freed_memory_is_reused() -> None:
    if not sys.platform.startswith("linux"):
        keep_freed_memory()  # elsewhere it does nothing, quietly
        return
    code = """
import resource, torch
from src.runtime import keep_freed_memory
keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(10**7) for _ in range(3)]  # 3 times 40 MB: 29,300 pages
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sum([faults() for _ in range(8)][4:]))
"""
    root = Path(__file__).parents[1]
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert int(shown.stdout) < 10_000  # of 117,200
