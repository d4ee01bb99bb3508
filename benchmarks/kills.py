"""python -m benchmarks.kills: stop training runs at random moments, and check that nothing is lost.

Each run of a stage is stopped by a random signal, restarted with the same command until it finishes, and compared with
an undisturbed run: both checkpoints must be equal bit for bit. After every stop, best_model.pt must load and the best
model of an earlier run must still be there. At the end no temporary file may remain. The models are tiny, and every
run is a fork of a process that has imported PyTorch. Linux and macOS only.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.fork import POLL_S, Child, prepare
from benchmarks.fuzz_files import hugging_face_files
from src.checkpoint import BEST, LATEST, load_model, read_checkpoint
from src.cli import flag, parse
from src.model.gpt import GPTModel
from src.program import DONE, INTERRUPTED, run_script

SIGNALS = ("SIGKILL",) * 6 + ("SIGTERM", "SIGHUP", "SIGINT", "SIGINT")
AIMED = 0.5  # share of the signals sent while a file is being written
LIMIT_S = 60.0  # a run that takes longer hangs
MAX_RESTARTS = 50
SCRIPTS = ("main", "finetune_gpt2", "instruction_tune", "dpo_train")
WORDS = "the a one this old new king queen fool ship sea storm night day sees seeks loves leaves finds and but so"


@dataclass(frozen=True)
class Flags:
    kills: int = flag(1000, "signals to send, over all stages")
    seed: int = flag(0, "seed of the moments, the signals and the stages")


@dataclass(frozen=True)
class Stage:
    """A training script and its arguments; `folder` holds its inputs and its undisturbed run."""

    script: str
    arguments: list[str]
    folder: Path

    def run(self, where: Path, *extra: str) -> Child:
        """Start the script in the folder `where`; its messages are appended to `where`/output.txt."""
        where.mkdir(parents=True, exist_ok=True)
        argv = [*self.arguments, "--out", str(where / "out"), "--log-dir", str(where / "logs"), *extra]

        def script() -> int:
            os.chdir(where)
            sys.argv = [f"{self.script}.py", *argv]
            run_script(lambda: int(importlib.import_module(self.script).main(argv)))

        return Child(script, where / "output.txt")


@dataclass
class Expected:
    """The undisturbed run of a stage, the run that was there before it, and how long the stage takes."""

    stage: Stage
    checkpoints: Mapping[str, Any]
    earlier: Path
    earlier_best: Mapping[str, torch.Tensor]
    seconds: float


@dataclass
class Campaign:
    """Counts of the signals sent and of the exit codes that followed, and the problems found."""

    random: random.Random
    sent: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def trial(self, expected: Expected, where: Path) -> None:
        """One run, stopped once or more, restarted until it is done, then compared with the undisturbed run."""
        shutil.copytree(expected.earlier, where)
        stops = self.random.randint(1, 4)
        for attempt in range(MAX_RESTARTS):
            code = self._stopped(expected, where) if attempt < stops else expected.stage.run(where).wait(LIMIT_S)
            self._check(expected, where, code)
            if code == DONE:
                break
        for problem in differences(expected, where):
            self._report(expected, where, problem)

    def _stopped(self, expected: Expected, where: Path) -> int | None:
        """The exit code of a run that was sent a signal: at any moment, or while a file is being written."""
        child = expected.stage.run(where)
        if self.random.random() < AIMED:
            _wait_for_save(child, where, self.random.randrange(12))
            time.sleep(self.random.choice([0, 0, 0.001, 0.003]))
        else:
            time.sleep(self.random.uniform(0, expected.seconds))
        name = self.random.choice(SIGNALS)
        if child.poll() is None:
            self.sent[f"{expected.stage.script} {name}"] += 1
            child.send(getattr(signal, name))
        return child.wait(LIMIT_S)

    def _check(self, expected: Expected, where: Path, code: int | None) -> None:
        """What must hold after every stop."""
        if code is None:
            self._report(expected, where, f"still running after {LIMIT_S:.0f} s")
        elif code > 0 and code not in (DONE, INTERRUPTED):
            self._report(expected, where, f"exit code {code}")
        try:
            load_model(where / "out" / BEST)
        except (OSError, ValueError) as error:
            self._report(expected, where, f"{BEST} does not load: {error}")
        if not any(equal(saved, expected.earlier_best) for saved in _saved_weights(where / "out")):
            self._report(expected, where, "the best model of the earlier run is gone")

    def _report(self, expected: Expected, where: Path, problem: str) -> None:
        last = (where / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
        self.problems.append(f"{expected.stage.script}, {where.name}: {problem} ({' / '.join(last)})")
        print(self.problems[-1], flush=True)


def differences(expected: Expected, where: Path) -> Iterator[str]:
    """How a finished run differs from the undisturbed one."""
    for name, content in expected.checkpoints.items():
        found = read_checkpoint(where / "out" / name)
        for key in ("model", "optimizer", "step", "epoch", "train_loss", "val_loss"):
            if not equal(found.get(key), content.get(key)):
                yield f"{name}: {key} differs from the undisturbed run"
    if leftovers := [str(file.relative_to(where)) for file in where.rglob("*.tmp")]:
        yield f"temporary files remain: {', '.join(leftovers)}"


def equal(a: Any, b: Any) -> bool:
    """Whether two values of a checkpoint are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def _saved_weights(folder: Path) -> Iterator[Mapping[str, torch.Tensor]]:
    for file in folder.glob("*best*.pt"):
        yield read_checkpoint(file)["model"]


def _wait_for_save(child: Child, where: Path, skipped: int) -> None:
    """Wait until a run writes a temporary file, after as many others as `skipped`, or until it ends."""
    seen: set[str] = set()
    end = time.monotonic() + LIMIT_S
    while child.poll() is None and len(seen) <= skipped and time.monotonic() < end:
        for folder in (where / "out", where / "logs", where / "checkpoints"):
            if folder.is_dir():
                seen.update(name for name in os.listdir(folder) if name.endswith(".tmp"))
        time.sleep(POLL_S / 4)


def expect(stage: Stage) -> Expected:
    """Run a stage undisturbed, twice: first with another seed, as the earlier run. Raises RuntimeError if it fails."""
    earlier, where = stage.folder / "earlier", stage.folder / "undisturbed"
    _finish(stage.run(earlier, "--seed", "7"), earlier)
    shutil.rmtree(earlier / "logs")
    shutil.copytree(earlier, where)
    start = time.monotonic()
    _finish(stage.run(where), where)
    seconds = time.monotonic() - start
    checkpoints = {name: read_checkpoint(where / "out" / name) for name in (BEST, LATEST)}
    return Expected(stage, checkpoints, earlier, read_checkpoint(earlier / "out" / BEST)["model"], seconds)


def _finish(child: Child, where: Path) -> None:
    if child.wait(LIMIT_S) != DONE:
        raise RuntimeError(f"an undisturbed run failed: {(where / 'output.txt').read_text(encoding='utf-8')[-500:]}")


def stages(folder: Path) -> Iterator[Expected]:
    """The four stages, each from the undisturbed run of the one before; their inputs are written to `folder`."""
    rng = random.Random(0)
    sentence: Callable[[], str] = lambda: " ".join(rng.choices(WORDS.split(), k=6))  # noqa: E731
    (folder / "text.txt").write_text("\n".join(sentence() + "." for _ in range(200)), encoding="utf-8")
    turns = [{"instruction": sentence(), "output": sentence()} for _ in range(12)]
    pairs = [{"instruction": sentence(), "chosen": sentence(), "rejected": sentence()} for _ in range(12)]
    for name, records in (("turns", turns), ("pairs", pairs)):
        (folder / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
    _save_gpt2(folder / "gpt2")
    # The precision is fixed, because auto measures which is faster: two runs may decide differently.
    common = "--precision fp32 --max-steps 12 --eval-every 2 --batch-size 2".split()
    common += "--max-lr 1e-2 --min-lr 1e-3 --warmup-steps 2".split()
    text = ["--data", str(folder / "text.txt"), "--context-length", "16", *common]
    yield expect(Stage("main", ["--tokenizer", "word", "--dropout", "0.1", *text], folder / "main"))
    yield expect(Stage("finetune_gpt2", ["--weights", str(folder / "gpt2"), *text], folder / "finetune"))
    tuning = [*common, "--context-length", "64", "--val-fraction", "0.2"]
    base = str(folder / "main" / "undisturbed" / "out")
    sft = ["--base", base, "--data", str(folder / "turns.json"), "--dropout", "0.1", *tuning]
    yield expect(Stage("instruction_tune", sft, folder / "sft"))
    base = str(folder / "sft" / "undisturbed" / "out")
    yield expect(Stage("dpo_train", ["--base", base, "--data", str(folder / "pairs.json"), *tuning], folder / "dpo"))


def _save_gpt2(folder: Path) -> None:
    """A GPT-2 with random weights, as the Hugging Face hub stores it."""
    torch.manual_seed(0)
    size = {"vocab_size": 50257, "context_length": 64, "d_model": 8, "n_heads": 2, "n_layers": 1}
    folder.mkdir()
    config, _ = hugging_face_files(folder / "model.safetensors", GPTModel(size))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _shrink_models() -> None:
    """Make every run short: a model of a few thousand parameters, and samples of a few tokens."""
    for name in SCRIPTS:
        constants = vars(importlib.import_module(name))
        constants.update(SAMPLE_TOKENS=4)
        if "GPT_CONFIG" in constants:
            constants["GPT_CONFIG"] = {**constants["GPT_CONFIG"], "d_model": 16, "n_heads": 2, "n_layers": 1}


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    prepare(("torch._dynamo", "matplotlib.pyplot", *SCRIPTS))
    _shrink_models()
    campaign = Campaign(random.Random(flags.seed))
    start, trials = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        prepared = list(stages(Path(folder)))
        while campaign.sent.total() < flags.kills:
            expected = prepared[trials % len(prepared)]
            trials += 1
            where = Path(folder) / f"trial-{trials}"
            campaign.trial(expected, where)
            shutil.rmtree(where)
            if trials % 100 == 0:
                print(f"{campaign.sent.total()} signals, {trials} runs so far", flush=True)
    for name, count in sorted(campaign.sent.items()):
        print(f"{name:<28}{count:6}")
    seconds = time.monotonic() - start
    print(f"{campaign.sent.total()} signals, {trials} runs, {len(campaign.problems)} problems, {seconds:.0f} s")
    return 1 if campaign.problems else 0


if __name__ == "__main__":
    run_script(main)
