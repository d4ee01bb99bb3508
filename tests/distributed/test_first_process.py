"""What the first process does before the others may take longer than the time after which a process is given up."""

import atexit
import os
import platform
import re
import time
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from src.data import learned_tokenizer
from src.distributed.processes import Processes, first_process_first, join
from src.program import DONE, FAILED
from src.tokenizer import encoding_fingerprint
from tests.distributed.launch import run_forked, run_in_processes


def when_each_works() -> tuple[float, float]:
    """(when this process works, when the first one has worked). It works longer than a process waits for another."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=2))
    with first_process_first():
        if dist.get_rank() == 0:
            time.sleep(3)
        works = time.time()
    ended = Processes(dist.get_rank(), dist.get_world_size()).from_first(works)
    dist.destroy_process_group()
    return works, ended


@pytest.mark.slow
def test_the_others_wait_for_the_first_process_however_long_it_works() -> None:
    for works, first_ended in run_in_processes(when_each_works).values():
        assert works >= first_ended


def vocabulary_of_a_slow_text(file: Path) -> str:
    """The fingerprint of a tokenizer that the first process learns, for longer than a process waits for another."""
    os.environ["GPT2_TIMEOUT_S"] = "2"
    training_texts = learned_tokenizer.training_texts

    def slow_texts(*arguments: Any, **options: Any) -> Iterable[str]:
        time.sleep(3)
        return training_texts(*arguments, **options)

    learned_tokenizer.training_texts = slow_texts
    processes = join(torch.device("cpu"))
    fingerprint = encoding_fingerprint(learned_tokenizer.choose_encoding("word", file, processes=processes))
    atexit._run_exitfuncs()  # a process that multiprocessing starts ends without it
    return fingerprint


@pytest.mark.slow
def test_the_others_wait_for_the_tokenizer_that_the_first_process_learns(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("some words, and more words")
    first, second = run_in_processes(vocabulary_of_a_slow_text, tmp_path / "text.txt").values()
    assert first == second


def learn(file: Path, fault: str | None) -> int:
    """Learn a tokenizer in the first of several processes, which may have a fault in the middle of it."""
    processes = join(torch.device("cpu"))
    if fault:
        learned_tokenizer.training_texts = partial(fail, fault)
    learned_tokenizer.choose_encoding("word", file, processes=processes)
    return DONE


def fail(fault: str, *_: Any, **__: Any) -> Iterable[str]:
    raise ValueError(fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, "record 7: no text"])
def test_a_failure_of_the_first_process_ends_those_that_wait_for_its_tokenizer(
    tmp_path: Path, fault: str | None
) -> None:
    (first_code, first), (code, second) = run_forked(learn, tmp_path / "text.txt", fault, processes=2, machines=2)
    assert first_code == code == FAILED
    problem = fault or f"{tmp_path}/text.txt not found"
    again = "to continue, run the same command again"
    assert re.fullmatch(f"error: {problem}.*\n", first)
    assert re.fullmatch(f"error: rank 0 on {platform.node()} failed: {problem}.*; {again}\n", second)
