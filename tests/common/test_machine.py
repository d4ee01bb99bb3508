"""The memory and CPUs that a container or ulimit allows."""

import os
from pathlib import Path

import pytest

from src.common import machine
from src.common.machine import usable_cpus, usable_memory

MACHINE = 64 * 2**30
UNLIMITED_V1 = str(2**63 - 4096)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a machine with 64 GB and 8 CPUs, whose files under /proc and /sys/fs/cgroup have the given content."""
    monkeypatch.setattr(machine, "_physical_memory", lambda: MACHINE)
    monkeypatch.setattr(machine, "_resource_limits", lambda: iter(()))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)

    def system(files: dict[str, str]) -> tuple[Path, Path]:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n", encoding="ascii")
        return tmp_path / "proc", tmp_path / "cgroup"

    return system


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/", "cgroup/memory.max": "2147483648", "cgroup/cpu.max": "150000 100000"},
        {  # systemd-run --scope: the limits are in the process's own cgroup
            "proc/self/cgroup": "0::/user.slice/run.scope",
            "cgroup/user.slice/run.scope/memory.max": "2147483648",
            "cgroup/user.slice/run.scope/cpu.max": "200000 100000",
        },
        {  # the parent's limit is lower
            "proc/self/cgroup": "0::/pod/one",
            "cgroup/pod/one/memory.max": "4294967296",
            "cgroup/pod/memory.max": "2147483648",
            "cgroup/pod/one/cpu.max": "max 100000",
            "cgroup/pod/cpu.max": "200000 100000",
        },
        {"proc/self/cgroup": "0::/", "cgroup/memory.high": "2147483648", "cgroup/cpu.max": "200000 100000"},
        {  # Docker with version 1: the path is the host's, and the container sees its own cgroup at the top
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n1:name=systemd:/docker/0123",
            "cgroup/memory/memory.limit_in_bytes": "2147483648",
            "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
            "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    ],
    ids=["v2", "v2 scope", "v2 parent", "v2 high", "v1"],
)
def test_a_container_limits_memory_and_cpus(system, files: dict[str, str]) -> None:
    assert usable_memory(*system(files)) == (2 * 2**30, "the memory limit of its container")
    assert usable_cpus(*system(files)) == 2


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/", "cgroup/memory.max": "max", "cgroup/cpu.max": "max 100000"},
        {"proc/self/cgroup": "0::/", "cgroup/memory.max": "", "cgroup/cpu.max": "many 100000"},
        {"proc/self/cgroup": "nonsense", "cgroup/memory.max": "1.5 GB"},
        {
            "proc/self/cgroup": "2:cpu:/\n1:memory:/",
            "cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            "cgroup/cpu/cpu.cfs_quota_us": "-1",
            "cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    ],
    ids=["no cgroups", "v2", "unreadable", "foreign", "v1"],
)
def test_without_a_limit_the_machine_counts(system, files: dict[str, str]) -> None:
    assert usable_memory(*system(files)) == (MACHINE, "the machine's memory")
    assert usable_cpus(*system(files)) == 8


def test_ulimit_limits_memory(system, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.undo()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**50, before[1]))
    try:
        assert 2**50 in machine._resource_limits()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_the_lowest_limit_counts(system, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = system({"proc/self/cgroup": "0::/", "cgroup/memory.max": str(2**32)})
    monkeypatch.setattr(machine, "_resource_limits", lambda: iter([2**31]))
    assert usable_memory(*folders) == (2**31, "its memory limit (ulimit -v or -d)")


def test_a_system_that_reports_nothing(system, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_physical_memory", lambda: None)
    assert usable_memory(*system({})) == (None, "unknown")
