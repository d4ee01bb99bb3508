"""Where the checkout is, and which of its files git tracks."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def git(*arguments: str, exit_codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    """Run git in the checkout. Fails the test if git cannot answer."""
    command = ["git", "-c", "safe.directory=*", *arguments]  # the checkout may belong to another user
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    except OSError as error:
        pytest.fail(f"this test needs git: {error}")
    if done.returncode not in exit_codes:
        pytest.fail(f"this test needs a git checkout: git {' '.join(arguments)}: {done.stderr.strip()}")
    return done


def tracked_files(*patterns: str) -> list[Path]:
    """The files that git tracks and that exist. Untracked files are the user's own and are left out."""
    names = git("ls-files", "--cached", "-z", "--", *patterns).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]
