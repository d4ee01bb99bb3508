"""Start torchrun for the tests."""

import os
import subprocess
import sys
from pathlib import Path

from tests.repository import ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


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
