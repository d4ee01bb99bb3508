"""python -m src.plan: the memory and time that a training run needs, on this machine or on several.

Memory is computed: the sum of what a process holds at the peak of a step. Time is measured: the difference between a
one-layer and a four-layer model gives the cost per layer. Of a large step, only some micro-batches are measured.
Processes on this machine are measured together; the network between machines is not measured. Dropout needs more
memory and time, and is not included.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("src.plan")

import json
from collections.abc import Sequence

from src.cli import parse
from src.planning.flags import Flags


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan of a run; returns the exit code."""
    flags, _ = parse(Flags, argv, __doc__)
    from src.planning.report import as_json, as_lines, make_plan  # PyTorch: slow, and a wrong flag does not need it
    from src.runtime import keep_freed_memory

    keep_freed_memory()
    plan = make_plan(flags)
    if flags.json:
        print(json.dumps(as_json(plan), indent=1))
    else:
        print(*as_lines(plan), sep="\n")
    return 0
