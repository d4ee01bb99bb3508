"""python -m src.curves LOG...: draw the curves of training runs as one picture.

LOG is the log of a run (logs/STAGE-TIME.jsonl), a folder of logs, or a pattern such as logs/sft-*.jsonl. The logs of a
resumed run are joined. Runs of one stage share a picture, with the settings that differ in its legend.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("src.curves.__main__")

import glob
from collections.abc import Sequence
from pathlib import Path

from src.cli import Parser
from src.common.messages import visible
from src.curves.logs import RunLog, join_resumed, read_log, with_earlier_logs
from src.curves.picture import FORMATS, draw
from src.program import DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the runs in the logs, one picture for each stage; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("logs", metavar="LOG", nargs="+", help="a log, a folder of logs, or a pattern")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the picture, .png, .pdf or .svg (default, next to the logs: LOG.png for one run, else curves-STAGE.png)",
    )
    flags = parser.parse_args(argv)
    if flags.out and flags.out.suffix not in FORMATS:
        parser.error(f"--out must end with {', '.join(FORMATS)}, got {flags.out}")
    stages = runs_by_stage([log for text in flags.logs for log in read_logs(text)])
    if not stages:
        raise ValueError(f"{' '.join(flags.logs)}: there is no loss to draw")
    if flags.out and len(stages) > 1:
        raise ValueError(f"--out names one picture, and these logs are of {', '.join(stages)}; leave --out out")
    for stage, runs in stages.items():
        out = flags.out or default_picture(stage, runs)
        try:
            draw(runs, out)
        except OSError as error:
            raise OSError(f"{out}: cannot be written ({error.strerror}); choose another file with --out") from error
        print(f"{stage}: {len(runs)} run{'s' if len(runs) > 1 else ''} drawn to {out}")
    return DONE


def default_picture(stage: str, runs: Sequence[RunLog]) -> Path:
    """The picture next to the logs: named after the log of a single run, or after the stage of several."""
    log = runs[-1].path
    return log.with_suffix(".png") if len(runs) == 1 else log.with_name(f"curves-{stage}.png")


def read_logs(text: str) -> list[RunLog]:
    """The logs that an argument names: a file, the logs of a folder, or the matches of a pattern.

    In a folder, other files are left out with a note. Raises FileNotFoundError if there is no log, ValueError if the
    named file is not one.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        paths = sorted(path.glob("*.jsonl"))
    elif not path.exists() and glob.has_magic(text):  # Windows' shells leave patterns to the program
        paths = sorted(map(Path, glob.glob(str(path))))
    else:
        return with_earlier_logs(read_log(path))
    if not paths:
        raise FileNotFoundError(f"{path}: no logs (*.jsonl) in this folder")
    logs = []
    for each in paths:
        try:
            logs.append(read_log(each))
        except ValueError as error:
            print(f"note: left out: {visible(str(error))}")
    return logs


def runs_by_stage(logs: Sequence[RunLog]) -> dict[str, list[RunLog]]:
    """The runs in the logs, by stage. Notes damaged lines, and runs that ended before their first loss."""
    different = {log.path.resolve(): log for log in logs}.values()
    for log in different:
        if log.damaged:
            print(f"note: left out: {log.path}: {log.damaged}")
    stages: dict[str, list[RunLog]] = {}
    for run in join_resumed(different):
        if run.is_empty:
            print(f"note: left out: {run.path}: no loss yet")
        else:
            stages.setdefault(run.stage, []).append(run)
    return stages
