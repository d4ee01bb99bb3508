"""A run that clearly does not fit is refused with its figures and with changes that help, and no other run."""

import re
from dataclasses import replace

import pytest
import torch

from src.common import machine
from src.model.config import GPT_CONFIGS, GPTConfig
from src.training import fit
from src.training.fit import GB, MARGIN, advice, require_fit
from src.training.memory_estimate import Workload, peak

CPU = torch.device("cpu")
WORK = Workload(config=GPTConfig.of(GPT_CONFIGS["gpt2-124M"]), batch_size=16, context_length=1024)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch):
    """Sets the memory and the swap space of the machine in bytes."""

    def room(n_bytes: float | None, swap: int = 0) -> None:
        limited_by = "the memory limit of its container"
        monkeypatch.setattr(fit, "usable_memory", lambda: (n_bytes and int(n_bytes), limited_by))
        monkeypatch.setattr(fit, "swap_space", lambda: swap)

    return room


def test_a_run_is_refused_only_if_its_estimate_is_clearly_above_the_memory(room) -> None:
    limit = peak(WORK) / MARGIN
    for n_bytes, swap in ((limit + 1, 0), (limit - GB, int(GB) + 1), (None, 0)):
        room(n_bytes, swap)
        require_fit(WORK, CPU)
    room(limit - 1)
    with pytest.raises(ValueError, match="^this run does not fit in memory: a step needs about "):
        require_fit(WORK, CPU)


def test_the_refusal_gives_figures_and_changes_in_one_line(room) -> None:
    room(6 * GB)
    with pytest.raises(ValueError) as refused:
        require_fit(WORK, CPU)
    message = str(refused.value)
    assert re.search(r"needs about \d+\.\d GB \(optimizer 1\.0, activations \d\.\d, ", message)
    assert "there are 6.0 GB, the memory limit of its container; pass --activation-checkpointing; or pass " in message
    assert message.endswith("; --no-memory-check tries it anyway") and "\n" not in message


def test_processes_of_one_machine_share_its_memory(room, monkeypatch: pytest.MonkeyPatch) -> None:
    work = replace(WORK, strategy="ddp", processes=2)
    room(1.5 * peak(work))
    require_fit(work, CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="GB in each of 2 processes "):
        require_fit(work, CPU)


def test_on_a_gpu_its_free_memory_decides(room, monkeypatch: pytest.MonkeyPatch) -> None:
    room(None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")  # each has a GPU of its own
    cuda = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(peak(WORK)), 10**12))
    require_fit(WORK, cuda)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(GB), 10**12))
    with pytest.raises(ValueError, match="there are 1.0 GB, free on the GPU; use a smaller model, up to micro;"):
        require_fit(WORK, cuda)


def changed(work: Workload, change: str) -> Workload:
    """The workload with the flags that an advice names."""
    for name, value in re.findall(r"--(batch-size|grad-accum|context-length) (\d+)", change):
        work = replace(work, **{name.replace("-", "_"): int(value)})
    return replace(work, activation_checkpointing="--activation-checkpointing" in change)


@pytest.mark.parametrize("gigabytes", [3, 3.4, 4, 6, 8])
def test_the_advice_fits_and_trains_the_same(gigabytes: float) -> None:
    flags = [change for change in advice(WORK, gigabytes * GB) if change.startswith("pass")]
    assert flags
    for change in flags:
        work = changed(WORK, change)
        assert peak(work) <= gigabytes * GB
        if "context" not in change:
            assert work.batch_size * work.grad_accum == WORK.batch_size


def test_more_machines_and_a_smaller_model_fit() -> None:
    work = replace(WORK, config=GPTConfig.of(GPT_CONFIGS["gpt2-1558M"]), batch_size=2)
    for gigabytes, recomputed, smaller_size in ((10, False, "gpt2-355M"), (6, True, "gpt2-124M")):
        also = " and --activation-checkpointing" if recomputed else ""
        [machines, smaller] = advice(work, gigabytes * GB)
        pattern = f"train with torchrun and --strategy fsdp{also} on ([0-9]+) machines like this one"
        count = int(re.fullmatch(pattern, machines)[1])
        fsdp = replace(work, strategy="fsdp", activation_checkpointing=recomputed)
        fits = [peak(replace(fsdp, processes=n, batch_size=n)) <= gigabytes * GB for n in (count // 2, count)]
        assert fits == [False, True]
        assert smaller == f"use a smaller model, up to {smaller_size}"
    assert advice(work, GB / 2) == ["use a smaller model"]


def test_a_batch_is_divided_evenly_among_the_processes() -> None:
    work = replace(WORK, strategy="ddp", processes=4, batch_size=16)
    changes = [change for change in advice(work, 3.5 * GB, sharing=4) if "--batch-size" in change]
    assert changes and all(changed(work, change).batch_size % 4 == 0 for change in changes)


def test_absurd_workloads_are_estimated_at_once(room) -> None:
    room(8 * GB)
    for absurd in ({"batch_size": 10**12}, {"context_length": 10**9}, {"grad_accum": 10**12, "batch_size": 10**6}):
        with pytest.raises(ValueError, match="does not fit"):
            require_fit(replace(WORK, **absurd), CPU)


def test_swap_space_is_read_from_meminfo(tmp_path) -> None:
    assert machine.swap_space(tmp_path) == 0
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nSwapTotal:       2048 kB\nSwapFree: 1 kB\n")
    assert machine.swap_space(tmp_path) == 2048 * 1024


def test_an_adapter_is_advised_where_it_can_be_trained() -> None:
    work = Workload(config=GPTConfig.of(GPT_CONFIGS["gpt2-774M"]), batch_size=1, context_length=256)
    assert peak(replace(work, lora=8)) < 6 * GB < peak(work)
    advised = "pass --lora 8, which trains an adapter"
    assert advised in advice(replace(work, takes_lora=True), 6 * GB)
    assert advised not in advice(work, 6 * GB)  # main.py trains from scratch
    smaller = advice(replace(work, takes_lora=True, lora=8), 3 * GB)
    assert smaller and not any("--lora" in change or "torchrun" in change for change in smaller)
