"""The command line: the list, the output of each demonstration, and the errors."""

import io
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from src.intuition import (
    attention_by_hand,
    causal_mask,
    compression,
    custom_tokenizers,
    embeddings,
    fine_tuning,
    gradient_descent,
    mlp,
    next_word,
    preference_step,
    sampling_bars,
    softmax,
)
from src.intuition.__main__ import DEMONSTRATIONS, main
from src.intuition.terminal import bars, grey

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "src/intuition/attention.png"


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def test_no_name_lists_all_demonstrations(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys)
    assert re.findall(r"^  (\S+)  +\S", text, re.MULTILINE) == list(DEMONSTRATIONS)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_output_fits_the_terminal_and_ends_with_a_suggestion(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = shown(capsys, name)
    assert text.startswith(f"\n{name}: ")
    assert [line for line in text.splitlines() if len(line) > 80 or "\033" in line or line != line.rstrip()] == []
    (file,) = re.findall(r"\bsrc/intuition/\w+\.py", text.partition("\nTry: ")[2])
    changed = re.findall(r"\b[A-Z_]{4,}\b", text.partition("\nTry: ")[2])
    assert all(word in (ROOT / file).read_text(encoding="utf-8") for word in changed)
    assert shown(capsys, name) == text
    assert [path.as_posix() for path in Path().rglob("*.png")] == ["logs/intuition/attention.png"] * (
        name == "attention"
    )


@pytest.mark.parametrize(
    ("name", "module", "changes", "claims"),
    [
        ("byte-pairs", custom_tokenizers, {"MAX_MERGES": 2}, ["2 merges are done", "|low|e|r|s| |s|low|s|"]),
        (
            "byte-pairs",
            custom_tokenizers,
            {"MAX_MERGES": 40, "TEXT": 2 * custom_tokenizers.TEXT},
            ["No pair occurs twice", "the text is 2 tokens long"],
        ),
        (
            "next-word",
            next_word,
            {"TEXT": next_word.TEXT + " the dog ran ."},
            ["loss 0.31,", "loss 0.54,", "loss 0.54,"],
        ),
        ("softmax", softmax, {"SCORES": {**softmax.SCORES, "green": -math.inf}}, ["exp(-inf) =  0.00", "0.000"]),
        (
            "gradient-descent",
            gradient_descent,
            {"LEARNING_RATE": 3.0, "RATES": (*gradient_descent.RATES, 6.0)},
            ["The loss fell", "   3 ", "0.5623", "\n  6 "],
        ),
        ("compression", compression, {"TEXT": 10 * "the cat sat . "}, ["and back", "gzip", "counting"]),
        (
            "embeddings",
            embeddings,
            {
                "TEXT": embeddings.TEXT + " the horse sat . the horse ran .",
                "SHOWN": ("the", "horse", *embeddings.SHOWN[2:]),
            },
            ["similar (0.67)"],
        ),
        ("attention", attention_by_hand, {"QUERIES": ((0.0, 0.0), (0.0, 2.0), (0.5, 0.0))}, ["sat -> cat   0.5 x 2"]),
        ("causal-mask", causal_mask, {"WINDOW": 2}, ["sat: 0.94 x (4.0, 0.0) + 0.06 x (0.0, 2.0) = (3.8, 0.1)"]),
        ("mlp", mlp, {"TEXTS": {**mlp.TEXTS, "not not good": (2, 1)}}, ["not not good (2, 1)", "-3.00"]),
        ("sampling", sampling_bars, {"SCORES": {**sampling_bars.SCORES, "blue": 5.0}}, ["2 tokens are left."]),
        ("fine-tuning", fine_tuning, {"EPOCHS": 20}, ["20 times over", "90.9%"]),
        ("preference-step", preference_step, {"BETA": 0.2}, ["margin 0 -> 0.2000", "-1.00 + 0.5 x (1 - 2) = -1.50"]),
    ],
)
def test_a_suggested_change_leaves_the_text_true(
    name: str, module: ModuleType, changes: dict[str, Any], claims: list[str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = shown(capsys, name)
    for constant, value in changes.items():
        monkeypatch.setattr(module, constant, value)
    text = shown(capsys, name)
    assert text != before and not re.search(r"\bnan\b", text) and max(map(len, text.splitlines())) <= 80
    for claim in claims:
        assert claim in text
        text = text.partition(claim)[2]


def test_each_demonstration_names_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "words").endswith("\nNext: python -m src.intuition byte-pairs\n")
    assert shown(capsys, list(DEMONSTRATIONS)[-1]).endswith("\nNext: python -m exercises.start\n")
    assert "Next:" not in shown(capsys, "characters", "words")


def test_all_runs_every_demonstration_in_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = shown(capsys, "all", "--out", str(tmp_path / "w.png"))
    headings = [name for name in DEMONSTRATIONS if f"\n{name}: " in text]
    assert headings == sorted(DEMONSTRATIONS, key=lambda name: text.index(f"\n{name}: ")) == list(DEMONSTRATIONS)
    assert (tmp_path / "w.png").is_file()


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["atention"], "there is no demonstration 'atention' (did you mean attention?)"),
        (["xyz"], "there is no demonstration 'xyz'; choose from all, characters, "),
        (["words", "--out", "w.png"], "--out needs attention among the names"),
        (["attention", "--out", "w.txt"], "--out must be a file name ending in .png, got 'w.txt'"),
        (["words", "--checkpoint", "scratch"], "--checkpoint needs byte-pairs or compression among the names"),
        (["byte-pairs", "--text", "Go"], "--text needs a sentence and --checkpoint"),
        (["byte-pairs", "--checkpoint", "scratch", "--text", " "], "--text needs a sentence and --checkpoint"),
        (["--loud"], "unrecognized arguments: --loud"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    printed = capsys.readouterr()
    assert left.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.partition(": ")[2].startswith(complaint)


def test_bad_usage_names_the_command_and_its_help() -> None:
    done = python("-m", "src.intuition", "atention")
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(rb"src\.intuition: [^\n]+; see python -m src\.intuition --help\s*", done.stderr)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, env={"PYTHONPATH": str(ROOT), **environment})


def test_unwritable_picture_is_one_line_and_exit_code_1() -> None:
    done = python("-m", "src.intuition", "attention", "--out", "README.md/w.png")
    assert done.returncode == 1
    assert re.fullmatch(rb"error: can't write the picture \S+: [^\n]+ with --out PATH\s*", done.stderr)


def test_closed_pipe_is_not_an_error() -> None:
    command = [sys.executable, "-m", "src.intuition", "words"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert (running.stderr.read(), running.wait()) == (b"", 0)


def test_bars_are_utf8_whatever_the_locale() -> None:
    done = python("-m", "src.intuition", "sampling", "causal-mask", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("utf-8")
    assert re.search("blue +\\d+[.]\\d%  \u2588\u2588\u2588\u2588", text) and "\u2592\u2592\u2592\u2592 0.50" in text


def test_tokenizer_demonstrations_skip_torch_and_matplotlib() -> None:
    code = "import sys; from src.intuition.__main__ import main; main(['characters', 'words', 'byte-pairs'])"
    check = "; sys.exit(str({'torch', 'matplotlib'} & set(sys.modules) or ''))"
    assert python("-c", code + check).stderr.strip() == b""


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("unset", "colours"), [("1", False), ("", True)])
def test_colours_need_a_terminal_and_respect_no_color(
    unset: str, colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert grey("x") == "x"
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", unset)
    assert ("\033" in grey("x")) == colours


def test_bar_length_is_proportional_to_its_share(capsys: pytest.CaptureFixture[str]) -> None:
    bars({"all": 1.0, "half": 0.5, "none": 0.0})
    whole, half, none = capsys.readouterr().out.splitlines()[:3]
    assert whole.count("\u2588") == 2 * half.count("\u2588") > 0
    assert none == "  none       -"


def test_committed_picture_is_small() -> None:
    assert PICTURE.read_bytes().startswith(b"\x89PNG") and PICTURE.stat().st_size < 60_000
