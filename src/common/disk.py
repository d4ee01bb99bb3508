"""File sizes and free disk space."""

import shutil
from pathlib import Path


def format_bytes(n_bytes: int) -> str:
    """Format a number of bytes, such as "548.1 MB" or "12.3 kB"."""
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 100_000 else f"{n_bytes / 1e3:.1f} kB"


def require_free_space(path: Path, needed_bytes: int, advice: str) -> None:
    """Raise OSError, with a message that ends with `advice`, if the disk of `path` has too little free space.

    Neither `path` nor its folder needs to exist yet.
    """
    absolute = Path(path).resolve()
    folder = next(parent for parent in (absolute, *absolute.parents) if parent.is_dir())
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        needed, free = format_bytes(needed_bytes), format_bytes(free_bytes)
        raise OSError(f"{path} needs {needed}, but the disk has only {free} free; {advice}")
