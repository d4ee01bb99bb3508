"""Ctrl-C and SIGTERM on torchrun save once, and the command that is printed then resumes the run."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.checkpoint import read_checkpoint
from src.distributed.environment import launcher
from src.entry import MESSAGE
from src.program import INTERRUPTED
from tests.distributed.launch import TRAIN, environment, read_until, started, write_text
from tests.repository import ROOT

STEP = r"step +\d+/2000"  # of the first step, and of every 100th


@pytest.mark.slow
def test_signals_save_once_and_the_printed_command_resumes(tmp_path: Path) -> None:
    write_text(tmp_path)
    script = [str(ROOT / TRAIN[0]), *TRAIN[1:]]
    torchrun = ["torchrun", "--nproc-per-node=2", "--max-restarts=2"]
    with started([*torchrun, "--signals-to-handle=SIGTERM,SIGHUP", *script], tmp_path) as process:
        read_until(process, STEP)
        process.send_signal(signal.SIGINT)
        output = read_until(process, "$^")
        assert process.wait() == -signal.SIGINT  # a shell reports 130
    first = saved_step(output, tmp_path)
    [printed] = re.findall("^resume with: (.*)$", output, re.MULTILINE)
    assert shlex.split(printed) == [*torchrun, *script]
    with started(f"exec {printed}", tmp_path) as process:
        read_until(process, STEP)
        process.terminate()
        output = read_until(process, "$^")
        assert process.wait() != 0  # torchrun's own code: 1, or an abort while it shuts down
    assert saved_step(output, tmp_path) > first


def saved_step(output: str, folder: Path) -> int:
    """The step at which the run was saved, once, according to its output and to the file."""
    [step] = re.findall(r"^interrupted after step (\d+) of 2000; saved out", output, re.MULTILINE)
    assert read_checkpoint(folder / "out/latest_model.pt")["step"] == int(step)
    return int(step)


@pytest.mark.parametrize(("rank", "printed"), [("0", f"\n{MESSAGE}\n"), ("1", "")])
def test_only_the_first_process_prints_that_it_was_interrupted(rank: str, printed: str) -> None:
    code = "from src.entry import exit_at_once; exit_at_once()"
    ended = subprocess.run([sys.executable, "-c", code], env=environment(RANK=rank), stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (INTERRUPTED, printed)


def test_the_command_for_several_machines_names_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher() == ["python"]
    variables = {
        "WORLD_SIZE": "16",
        "LOCAL_WORLD_SIZE": "8",
        "GROUP_WORLD_SIZE": "2",
        "MASTER_ADDR": "host1",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = "torchrun --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=host1:29500 --nproc-per-node=8"
    assert shlex.join(launcher()) == expected
