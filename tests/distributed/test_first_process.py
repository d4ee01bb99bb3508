"""What the first process does before the others may take longer than the time after which a process is given up."""

import subprocess
from pathlib import Path

import pytest

from tests.distributed.launch import TORCHRUN, environment
from tests.repository import ROOT


@pytest.mark.slow
def test_the_others_wait_for_the_first_process_however_long_it_works(tmp_path: Path) -> None:
    worker = str(ROOT / "tests/distributed/slow_first.py")
    command = [*TORCHRUN, "--nproc-per-node=2", "--standalone", worker]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
