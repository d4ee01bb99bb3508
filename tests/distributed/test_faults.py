"""A lost or failing process ends the others with one line that names its rank; what each rank prints can be read."""

import json
import platform
import queue
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from src.distributed import heartbeat
from src.distributed.failure import blame, silence_line
from src.distributed.heartbeat import FAILED as HAS_FAILED
from src.distributed.heartbeat import LEFT, RUNNING, WAITING, Beat, Heartbeat
from src.distributed.processes import join
from src.program import FAILED
from tests.distributed.exchanges import exchange
from tests.distributed.launch import read_until, run_forked, started
from tests.repository import ROOT

HOST = platform.node()
AGAIN = "to continue, run the same command again"


def errors(output: str) -> list[str]:
    """What our processes reported; the lines of torchrun's own report start differently."""
    return [
        line for line in output.splitlines() if re.match(r"(rank \d+: )?error: |\[rank\d+\]:|Exception|frame #", line)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "rank", "line"),
    [
        ("SIGKILL", 1, rf"error: connection lost to rank 1 on {HOST}(: .*)?; {AGAIN}"),
        ("SIGSTOP", 0, rf"error: no heartbeat from rank 0 on {HOST} for 5 s; {AGAIN}"),
        ("error", 1, r"error: rank 1: record 7: no text"),
    ],
)
def test_one_line_names_the_rank(fault: str, rank: int, line: str) -> None:
    stopped = rank if fault == "SIGSTOP" else None
    ended = run_forked(exchange, fault, rank, processes=3, stopped=stopped, GPT2_TIMEOUT_S="8")
    assert 0 not in [code for code, _ in ended]
    [found] = errors("".join(output for _, output in ended))
    assert re.fullmatch(line, found)


@pytest.mark.slow
def test_torchrun_prints_who_is_stuck_and_writes_what_another_rank_prints(tmp_path: Path) -> None:
    options = ["--nproc-per-node=2", "--standalone", "--log-dir=ranks", "--redirects=1:3"]
    command = ["torchrun", *options, str(ROOT / "tests/distributed/exchanges.py"), "stuck", "1"]
    with started(command, tmp_path, GPT2_TIMEOUT_S="3", TORCH_ELASTIC_SHUTDOWN_TIMEOUT="1") as process:
        output = read_until(process, "$^")
        assert process.wait() == FAILED
    [line] = errors(output)
    assert re.fullmatch(rf"error: no progress of rank 1 on {HOST}: .*[Tt]imed out.*; {AGAIN}", line)
    [log] = tmp_path.glob("ranks/*/attempt_0/1/stdout.log")
    assert log.read_text().splitlines() == [f"exchange {number}" for number in range(20)]
    assert output.count("exchange 19") == 1  # of the first process


@pytest.mark.slow
def test_processes_start_without_torchrun(tmp_path: Path) -> None:
    """Where torchrun does not work, as on Windows, variables do. Rank 0 then holds the store."""
    script = [sys.executable, str(ROOT / "tests/distributed/exchanges.py"), "none", "0"]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    variables = [{**shared, "USE_LIBUV": "0", "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    with started(script, tmp_path, **variables[0]) as first, started(script, tmp_path, **variables[1]) as second:
        outputs = [read_until(process, "$^") for process in (first, second)]
        codes = (first.wait(), second.wait())
    assert (codes, outputs[1]) == ((0, 0), "")


@pytest.mark.slow
def test_without_torchrun_a_lost_first_process_is_named() -> None:
    variables = {"MASTER_PORT": str(free_port()), "TORCHELASTIC_USE_AGENT_STORE": "False", "USE_LIBUV": "0"}
    (killed, _), (code, output) = run_forked(exchange, "SIGKILL", 0, processes=2, machines=2, **variables)
    assert (killed, code) == (-signal.SIGKILL, FAILED)
    assert re.fullmatch(rf"error: connection lost to rank 0 on localhost: .*; {AGAIN}\n", output)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
    return port


def test_an_apple_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="^several processes cannot train on --device mps; pass --device cpu$"):
        join(torch.device("mps"))


# --- one process among others that the test plays

INTERVAL_S = 0.05


class Others:
    """Three processes of a run on two machines: rank 0 on this one, ranks 1 and 2 on another."""

    def __init__(self) -> None:
        self.store, self.status, self.message, self.exchanges = (
            dist.HashStore(),
            {1: RUNNING, 2: RUNNING},
            "",
            {1: 3, 2: 3},
        )
        self.silent: set[int] = set()
        self.ended = False
        self._send(0)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        number = 0
        while not self.ended:
            time.sleep(INTERVAL_S)
            self._send(number := number + 1)

    def _send(self, number: int) -> None:
        for rank in {1, 2} - self.silent:
            beat = Beat(number, self.exchanges[rank], self.status[rank], "b", self.message)
            self.store.set(f"heartbeat/{rank}", json.dumps(beat))


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Iterator[Others]:
    for name, value in {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 3,
        "LOCAL_WORLD_SIZE": 1,
        "GPT2_TIMEOUT_S": 5,
    }.items():
        monkeypatch.setenv(name, str(value))
    others = Others()
    yield others
    others.ended = True


def lines_of(others: Others, monkeypatch: pytest.MonkeyPatch) -> tuple[Heartbeat, "queue.Queue[str | None]"]:
    """The heartbeat of rank 0, and the lines with which it would end its process."""
    lines: queue.Queue[str | None] = queue.Queue()
    own = Heartbeat(others.store, 0, 3, interval_s=INTERVAL_S)
    monkeypatch.setattr(heartbeat, "_own", own)
    own.start(lambda own: lines.put(silence_line(own)))
    return own, lines


def test_missing_heartbeats_end_a_process(others: Others, monkeypatch: pytest.MonkeyPatch) -> None:
    own, lines = lines_of(others, monkeypatch)
    time.sleep(30 * INTERVAL_S)
    assert lines.empty()
    others.silent = {1, 2}
    assert lines.get(timeout=20) == f"no heartbeat from rank 1 on b, rank 2 on b for 0.5 s; {AGAIN}"
    own.leave()


def test_a_process_that_left_is_not_missed(others: Others, monkeypatch: pytest.MonkeyPatch) -> None:
    own, lines = lines_of(others, monkeypatch)
    others.status = {1: LEFT, 2: LEFT}
    time.sleep(5 * INTERVAL_S)
    others.silent = {1, 2}
    time.sleep(40 * INTERVAL_S)
    assert lines.empty()
    own.leave()


def test_a_broken_connection_is_blamed_on_the_lost_process(others: Others, monkeypatch: pytest.MonkeyPatch) -> None:
    lines_of(others, monkeypatch)
    time.sleep(5 * INTERVAL_S)
    others.silent = {2}
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    assert blame("closed") == "connection lost to rank 2 on b: closed; torchrun starts all processes again"


def test_the_error_of_another_machine_is_repeated(others: Others, monkeypatch: pytest.MonkeyPatch) -> None:
    lines_of(others, monkeypatch)
    others.status, others.message = {1: RUNNING, 2: HAS_FAILED}, "out of memory"
    assert blame("closed") == f"rank 2 on b failed: out of memory; {AGAIN}"


def test_of_processes_that_still_run_the_one_behind_is_stuck(others: Others, monkeypatch: pytest.MonkeyPatch) -> None:
    own, _ = lines_of(others, monkeypatch)
    own.exchanges, others.exchanges = 4, {1: 4, 2: 3}
    others.status = {1: WAITING, 2: RUNNING}
    assert blame("timed out") == f"no progress of rank 2 on b: timed out; {AGAIN}"
    others.status = {1: WAITING, 2: WAITING}
    lines_of(others, monkeypatch)
    assert blame("timed out") == "timed out"


def test_a_lost_store_ends_a_process(others: Others, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is in the launcher or in rank 0, whose machine may be cut off."""
    monkeypatch.setenv("MASTER_ADDR", "a")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    own, lines = lines_of(others, monkeypatch)
    time.sleep(5 * INTERVAL_S)
    monkeypatch.setattr(own, "_store", CutStore())
    assert lines.get(timeout=20) == f"no answer from torchrun on a for 0.5 s; {AGAIN}"


class CutStore:
    def set(self, *_: str) -> None:
        raise RuntimeError("connection reset")

    multi_get = set
