"""python -m src.plan: what it prints, and that absurd input is refused at once."""

import json
import re
import subprocess
import sys

import pytest

from src.plan import main
from src.planning import report
from src.planning.report import duration
from src.training import fit
from src.training.fit import GB
from tests.repository import ROOT

SMALL = [
    "--model",
    "micro",
    "--vocab-size",
    "50257",
    "--batch-size",
    "2",
    "--context-length",
    "16",
    "--device",
    "cpu",
    "--precision",
    "fp32",
]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch):
    """Sets the measured seconds of a step, and the memory of the machine."""

    def step(seconds: float | None, memory: float | None = 8 * GB) -> None:
        def measure(*_: object) -> float:
            assert seconds, "measured, although it does not fit"
            return seconds

        monkeypatch.setattr(report, "measure_step", measure)
        limit = (memory and int(memory), "the memory limit of its container")
        monkeypatch.setattr(fit, "usable_memory", lambda: limit)

    return step


def lines(capsys: pytest.CaptureFixture, *argv: str) -> dict[str, str]:
    assert main([*argv]) == 0
    return {line[:9].strip(): line[9:] for line in capsys.readouterr().out.splitlines()}


def test_memory_and_a_measured_time(capsys: pytest.CaptureFixture) -> None:
    found = lines(capsys, *SMALL, "--grad-accum", "2", "--optimizer", "muon", "--vocab-size", "1000")
    assert found["model"] == "micro: 2 layers, 128 wide, 526,848 parameters, 0.00315 GFLOP per token"
    assert found["device"] == "cpu, fp32 (as requested)"
    assert re.match(r"about 0\.\d\d GB: .*process 0\.\d\d$", found["memory"])
    assert found["here"].endswith(": it fits")
    assert re.match(r"2 x 2 sequences of 16 tokens, muon: about \S+ s, \S+ tokens per second$", found["step"])
    assert re.match(r"10,536,960 tokens, 20 per parameter, compute-optimal .*: 3.3e\+13 FLOP, about ", found["run"])


def test_an_adapter_needs_less_memory_and_fewer_flops(capsys: pytest.CaptureFixture) -> None:
    main([*SMALL, "--stage", "sft", "--json"])
    whole = json.loads(capsys.readouterr().out)
    main([*SMALL, "--stage", "sft", "--lora", "4", "--json"])
    adapted = json.loads(capsys.readouterr().out)
    assert (whole["trained_parameters"], adapted["trained_parameters"]) == (whole["parameters"], 2 * 4 * 4 * 128)
    assert adapted["peak_of_a_process"] < whole["peak_of_a_process"] - whole["memory_of_a_process"]["optimizer"]
    assert whole["flops_per_token"] * 2 / 3 < adapted["flops_per_token"] < whole["flops_per_token"]
    assert adapted["step_seconds"] > 0


def test_tokens_and_time_of_a_run(step, capsys: pytest.CaptureFixture) -> None:
    step(2.0)
    found = lines(capsys, *SMALL, "--tokens", "57600")
    assert found["step"].endswith("about 2 s, 16 tokens per second")
    assert found["run"] == "57,600 tokens: 2.4e+12 FLOP, about 1.0 h"
    assert [duration(s) for s in (0.5, 90, 7200, 2e5, 1e9)] == ["0.5 s", "1.5 min", "2.0 h", "2.3 days", "31.7 years"]


def test_several_processes_share_the_machine(step, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    step(2.0)
    monkeypatch.setattr(report, "usable_cpus", lambda: 2)
    found = lines(capsys, *SMALL, "--processes", "2")
    assert found["share"] == "2 processes on 1 machine, ddp; each sends 0.0273 GB per step"
    assert found["here"] == "4.0 GB each, the memory limit of its container, for 2 processes: it fits"
    assert lines(capsys, *SMALL, "--processes", "4", "--batch-size", "4", "--strategy", "fsdp")["share"].startswith(
        "4 processes on 2 machines, fsdp; each sends "
    )
    large = ["--model", "gpt2-124M", "--processes", "2", "--device", "cpu", "--precision", "fp32", "--json"]
    for memory, strategy in ((8 * GB, "ddp"), (4.9 * GB, "fsdp")):
        step(2.0, memory)
        main(large)
        assert json.loads(capsys.readouterr().out)["strategy"] == strategy


def test_a_model_that_does_not_fit_is_not_timed_and_gets_advice(step, capsys: pytest.CaptureFixture) -> None:
    step(None)
    found = lines(capsys, "--model", "gpt3-175B", "--precision", "fp32", "--device", "cpu")
    assert found["here"] == "8.0 GB, the memory limit of its container: it does not fit"
    assert found["change"] == "use a smaller model, up to gpt2-355M"
    assert found["run"].endswith(" FLOP") and "step" not in found
    step(None, None)
    found = lines(capsys, "--model", "gpt3-175B", "--precision", "fp32", "--device", "cpu")
    assert found["here"] == "8.0 GB, unknown, so 8 GB are assumed: it does not fit"


def test_other_hardware_is_planned_from_its_memory_and_speed(step, capsys: pytest.CaptureFixture) -> None:
    step(None)
    argv = ["--model", "gpt3-13B", "--processes", "64", "--batch-size", "64", "--context-length", "2048"]
    main(
        [
            *argv,
            "--strategy",
            "fsdp",
            "--precision",
            "bf16",
            "--device",
            "cpu",
            "--memory",
            "80",
            "--speed",
            "100",
            "--json",
        ]
    )
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] and plan["room_of_a_process"] == 80e9
    assert plan["step_seconds"] == pytest.approx(plan["flops_per_token"] * 64 * 2048 / (64 * 100e12))
    assert plan["seconds"] == pytest.approx(plan["step_seconds"] * plan["tokens"] / (64 * 2048))
    assert plan["peak_of_a_process"] == pytest.approx(sum(plan["memory_of_a_process"].values()))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "gpt4"], "--model must be one of micro, tiny, gpt2-124M, .*, got 'gpt4'"),
        (["--batch-size", "0", "--grad-accum", "-1"], "--batch-size must be .* got 0; --grad-accum must be .* got -1"),
        (
            ["--context-length", str(10**9)],
            "--context-length must be a whole number from 1 to 1,048,576, got 1000000000",
        ),
        (["--batch-size", str(10**12)], "--batch-size must be a whole number from 1 to 1,000,000, got 1000000000000"),
        (["--context-length", "9" * 400], "--context-length must be .*, got '9{5,}\\.\\.\\.9{5,}';"),
        (["--processes", "0"], "--processes must be a whole number from 1 to 100,000, got 0"),
        (["--processes", "3", "--batch-size", "4"], "--batch-size 4 does not divide evenly among 3 .* --batch-size 6"),
        (["--lora", "0"], "--lora must be a rank from 1 to 768, the model's width, got 0"),
        (["--lora", "8", "--processes", "2"], "--lora trains in one process with AdamW"),
        (["--lora-targets", "all-linear"], "--lora-targets needs --lora RANK"),
        (["--memory", "-1", "--speed", "0"], "--memory must be above 0 .* got -1; --speed must be above 0"),
    ],
)
def test_a_bad_flag_is_refused_by_name(argv: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(argv)
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1


def test_an_absurd_flag_is_refused_before_pytorch_is_imported() -> None:
    absurd = [sys.executable, "-X", "importtime", "-m", "src.plan", "--context-length", str(10**9)]
    result = subprocess.run(absurd, cwd=ROOT, capture_output=True, text=True, check=False)
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time")}
    assert result.returncode == 2 and "src.planning.flags" in imported and "torch" not in imported
