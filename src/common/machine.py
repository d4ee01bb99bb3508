"""The memory and the CPUs that this process may use. A container or a shell can allow less than the machine has."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def usable_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> tuple[int | None, str]:
    """(bytes that this process may use, what limits them).

    The machine's memory, or the lower limit of a container (a Linux cgroup, version 1 or 2) or of `ulimit -v`.
    None if the system reports neither. proc, cgroups: where Linux mounts these file systems.
    """
    limits = [(n_bytes, "the memory limit of its container") for n_bytes in _container_memory(proc, cgroups)]
    limits += [(n_bytes, "its memory limit (ulimit -v or -d)") for n_bytes in _resource_limits()]
    if total := _physical_memory():
        limits.append((total, "the machine's memory"))
    return min(limits) if limits else (None, "unknown")


def swap_space(proc: Path = _PROC) -> int:
    """Bytes of swap space on Linux, 0 if there is none or another system does not report it."""
    lines = [line.split() for line in _read(proc / "meminfo").splitlines()]
    return next((int(words[1]) * 1024 for words in lines if words[0] == "SwapTotal:"), 0)


def usable_cpus(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """The number of CPUs that this process may use: its affinity, or the lower CPU quota of a container, rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _container_cpus(proc, cgroups)]
    return max(1, min([affinity, *quotas]))


def _physical_memory() -> int | None:
    if not hasattr(os, "sysconf"):  # Windows
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _resource_limits() -> Iterator[int]:
    """The limits in bytes that the shell's `ulimit` sets on the process."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft_limit, _ = resource.getrlimit(kind)
        if soft_limit != resource.RLIM_INFINITY:
            yield soft_limit


def _container_memory(proc: Path, cgroups: Path) -> Iterator[int]:
    """The limits in bytes of the process's cgroups. A limit that is absurdly high means that there is none."""
    for folder in _cgroup_folders("memory", proc, cgroups):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            yield from _numbers(folder / name)


def _container_cpus(proc: Path, cgroups: Path) -> Iterator[float]:
    """The quotas of the process's cgroups, in CPUs."""
    for folder in _cgroup_folders("cpu", proc, cgroups):
        version_1 = [*_numbers(folder / "cpu.cfs_quota_us"), *_numbers(folder / "cpu.cfs_period_us")]
        for numbers in (list(_numbers(folder / "cpu.max")), version_1):
            if len(numbers) == 2 and min(numbers) > 0:  # -1 or "max" is no quota
                yield numbers[0] / numbers[1]


def _cgroup_folders(controller: str, proc: Path, cgroups: Path) -> Iterator[Path]:
    """The folders of the process's cgroup and of all its parents, whose limits hold too.

    A line of /proc/self/cgroup is "id:controllers:path"; version 2 has no controllers. Inside a container, the path can
    be the host's and not exist there. Then the container's own limits are in the top folder, the last parent.
    """
    for line in _read(proc / "self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [cgroups / controllers, cgroups / controller] if controllers else [cgroups, cgroups / "unified"]
        for mount in mounts:
            folder = mount / path.strip("/")
            yield from (each for each in (folder, *folder.parents) if each.is_relative_to(mount))


def _numbers(path: Path) -> Iterator[int]:
    """The whole numbers in a file; none if it does not exist or cannot be read."""
    for word in _read(path).split():
        if word.removeprefix("-").isdecimal():
            yield int(word)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
