"""Start torchrun for the tests."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.repository import ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def environment(**more: str) -> dict[str, str]:
    """The variables of a launcher. The commands `python` and `torchrun` are those of this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def exchange_with(fault: str, rank: int, processes: int, folder: Path, *options: str) -> tuple[int, str]:
    """Run exchanges.py in several processes, one of which has a fault; returns (exit code, output) of torchrun."""
    script = [str(ROOT / "tests/distributed/exchanges.py"), fault, str(rank)]
    result = subprocess.run(
        [*TORCHRUN, f"--nproc-per-node={processes}", "--standalone", *options, *script],
        cwd=folder,
        env=environment(GPT2_TIMEOUT_S="10", TORCH_ELASTIC_SHUTDOWN_TIMEOUT="5"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    print(result.stdout[-4000:])  # pytest shows it if the test fails
    return result.returncode, result.stdout


TRAIN = (  # a run of minutes, which prints a line every 100 steps
    "main.py --data text.txt --tokenizer word --context-length 16 --batch-size 4 --precision fp32 --max-lr 3e-4 "
    "--dropout 0 --max-steps 2000 --eval-every 2000 --log-dir logs --out out"
).split()


def write_text(folder: Path) -> None:
    words = "the quick brown fox jumps over a lazy dog while seven ships sail north and no one waits for rain".split()
    lines = [" ".join(words[i * j % len(words)] for j in range(1, 12)) for i in range(60)]
    (folder / "text.txt").write_text("\n".join(lines))


@contextmanager
def started(command: str | Sequence[str], folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs in the folder, with stdout and stderr as one pipe. It is killed at the end."""
    process = subprocess.Popen(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What the process prints, until a line matches or its output ends."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            break
    text = "".join(lines)
    print(text)  # pytest shows it if the test fails
    return text
