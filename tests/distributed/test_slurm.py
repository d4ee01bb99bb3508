"""The Slurm batch file, run with stand-ins for Slurm's commands and for torchrun."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.repository import ROOT

BATCH_FILE = ROOT / "src/distributed/slurm.sbatch"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no bash")

# srun starts the command once on each node, and returns the worst exit code. SIGTERM makes it kill what it started.
SRUN = """
trap 'kill -KILL $(jobs -p); exit 143' TERM
[ "$1" = --kill-on-bad-exit=0 ] && shift
pids=; code=0
for node in $(seq $SLURM_JOB_NUM_NODES); do NODE=$node "$@" & pids="$pids $!"; done
for pid in $pids; do
    wait $pid; status=$?
    [ $status -gt $code ] && code=$status
done
exit $code
"""
# torchrun trains until SIGTERM if told so, then takes a moment to save.
TORCHRUN = """
trap 'sleep 0.2; echo saved >> calls; exit 1' TERM
echo $$ > pid$NODE
printf '%s\\n' "$@" > args$NODE.new; mv args$NODE.new args$NODE
[ -f exit_code ] && exit $(cat exit_code)
while :; do sleep 0.02; done
"""
SCANCEL = """
[ "$*" = "--signal=TERM 7" ] && kill -TERM $(cat pid1 pid2)
"""
SCONTROL = """
[ "$1 $2" = "show hostnames" ] && printf 'n1\\nn2\\n' && exit
echo "$@" >> calls
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run jobs in, with the commands and the variables of a job."""
    for name, script in {"srun": SRUN, "torchrun": TORCHRUN, "scancel": SCANCEL, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{script}")
        (tmp_path / name).chmod(0o755)
    variables = {
        "JOB_ID": "7",
        "JOB_NODELIST": "n[1-2]",
        "JOB_NUM_NODES": "2",
        "GPUS_ON_NODE": "8",
        "CPUS_PER_TASK": "16",
    }
    for variable, value in variables.items():
        monkeypatch.setenv(f"SLURM_{variable}", value)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def submit(job: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["bash", str(BATCH_FILE), "main.py", *arguments], cwd=job)


def words(job: Path, node: int) -> list[str]:
    """What torchrun was started with on a node."""
    while not (job / f"args{node}").exists():
        time.sleep(0.01)
    return (job / f"args{node}").read_text().split()


def calls(job: Path) -> Sequence[str]:
    return (job / "calls").read_text().splitlines() if (job / "calls").exists() else []


def test_each_node_runs_the_same_torchrun(job: Path) -> None:
    (job / "exit_code").write_text("0")
    assert submit(job, "--no-resume").wait() == 0
    assert words(job, 1) == words(job, 2)
    options = {"--nnodes=2", "--nproc-per-node=8", "--rdzv-endpoint=n1:29500", "--rdzv-backend=c10d"}
    assert options < set(words(job, 1))
    assert words(job, 1)[-2:] == ["main.py", "--no-resume"]
    assert not calls(job)


def test_near_the_time_limit_the_run_saves_and_is_queued_again(job: Path) -> None:
    process = submit(job)
    words(job, 1), words(job, 2)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 1
    assert calls(job) == ["saved", "saved", "requeue 7"]


def test_a_preempted_run_saves_and_leaves_queueing_to_slurm(job: Path) -> None:
    process = submit(job)
    words(job, 1), words(job, 2)
    process.terminate()
    subprocess.run(["scancel", "--signal=TERM", "7"], cwd=job, check=True)  # Slurm signals all of the job
    assert process.wait() == 1
    assert calls(job) == ["saved", "saved"]


def test_a_run_that_is_queued_again_resumes(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (job / "exit_code").write_text("0")
    assert submit(job, "--no-resume", "--data", "my file.txt").wait() == 0
    assert (job / "args1").read_text().splitlines()[-3:] == ["main.py", "--data", "my file.txt"]


def test_a_failed_run_is_not_queued_again(job: Path) -> None:
    (job / "exit_code").write_text("3")
    assert submit(job).wait() == 3
    assert not calls(job)
