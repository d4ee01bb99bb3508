"""chat.py as a user sees it: flags, commands, pipes, a terminal, and errors."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import chat
from src.chat.start import load_chat_model
from src.checkpoint import save_checkpoint
from src.checkpoint.training_examples import record_examples
from src.data.prompts import TEMPLATE
from src.model.generate import TextGenerator
from src.program import run_script
from src.tokenizer import describe
from tests.fakes import ANSWER, ENCODING, answering_model, save_model, stream_that_fails_once, terminal_with_keys

SCRIPT = Path(chat.__file__)


@pytest.fixture(scope="module")
def model():
    return answering_model(ANSWER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """A working folder with a tuned model and a raw one."""
    folder = tmp_path_factory.mktemp("chat")
    save_model(folder / "checkpoints/instruction_tuned/best_model.pt", model, TEMPLATE)
    save_model(folder / "checkpoints/scratch/best_model.pt", model, None)
    save_model(folder / "escape.pt", answering_model("Red \x1b[31m alert\x07\x9b!"), TEMPLATE)
    save_model(folder / "foreign.pt", model, "another template")
    return folder


@pytest.fixture
def converse(folder, monkeypatch, capsys):
    """Pipe lines through the chat: (exit code, stdout, stderr)."""

    def converse(typed: str | bytes = "", *argv: str):
        monkeypatch.chdir(folder)
        raw = typed if isinstance(typed, bytes) else typed.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="latin-1"))
        code = chat.main(argv)
        return code, *capsys.readouterr()

    return converse


def test_piped_lines_are_answered_one_after_another(converse):
    code, out, err = converse("\ufeffWhat is the capital of France?\r\n\n   \nAnd again?")
    assert code == 0
    assert out == f"Assistant: {ANSWER}\n" * 2
    assert "You:" not in out + err


def test_an_int8_model_answers_the_same_and_is_labelled(converse):
    code, out, err = converse("What is the capital of France?", "--quantize", "int8", "--temperature", "0")
    assert (code, out) == (0, f"Assistant: {ANSWER}\n")
    assert "64-token context, CPU, int8\n" in err
    assert "int8" not in converse("")[2]


def test_an_int8_chat_releases_the_fp32_weights(folder, monkeypatch):
    monkeypatch.chdir(folder)
    loaded = load_chat_model(chat.Flags(quantize="int8"), interactive=False)
    assert loaded.checkpoint.model is loaded.generator.model


def test_auto_takes_the_best_existing_model_and_says_why(converse, folder):
    tuned = folder / "checkpoints/instruction_tuned/best_model.pt"
    _, _, err = converse()
    assert err.startswith("note: Model: checkpoints/instruction_tuned (best available, no dpo model yet), ")
    assert "64-token context, " in err
    aligned = folder / "checkpoints/dpo_aligned/best_model.pt"
    aligned.parent.mkdir()
    shutil.copy(tuned, aligned)
    try:
        assert "Model: checkpoints/dpo_aligned (best available), " in converse()[2]
        assert "Model: checkpoints/instruction_tuned, " in converse("", "--model", "SFT")[2]
    finally:
        shutil.rmtree(aligned.parent)


@pytest.mark.parametrize("leave", ["/quit", "/exit", " /QUIT ", "exit"])
def test_quit_and_exit_leave(converse, leave):
    assert converse(f"Hello\n{leave}\nHello\n")[:2] == (0, f"Assistant: {ANSWER}\n")


def test_a_piped_session_prints_a_transcript(converse):
    code, out, err = converse("\ufeff/tokens 3\nFrance?\n/tokens 0\n/tokens 50\nFrance?\n/reset\n")
    assert code == 1  # because of /tokens 0
    assert out.splitlines() == [
        "max-tokens is 3.",
        "Assistant: Paris is the",
        "max-tokens is 50.",
        f"Assistant: {ANSWER}",
        "The conversation is cleared. /undo brings it back.",
    ]
    assert "note: The answer was cut off at 3 tokens; a larger max-tokens allows longer ones\n" in err
    assert err.endswith("error: /max-tokens must be a whole number of at least 1, got '0'\n")


def test_a_note_on_the_context_is_shown_once_and_each_answer_that_is_cut_off_is_marked(converse):
    _, _, err = converse("France?\n" * 6, "--max-tokens", "3")
    assert err.count("cut off at 3 tokens") == 6
    assert err.count("The model now sees only the latest turns") == 1


def test_the_first_screen_says_what_to_ask(converse, folder, model):
    content = {"model": model.state_dict(), "config": asdict(model.config), "stage": "sft", "template": TEMPLATE}
    examples = record_examples([("Who wrote Hamlet?", ANSWER), ("Why?", "So."), ("Why?", "No.")], "my.json")
    save_checkpoint(folder / "known.pt", {**content, "tokenizer": describe(ENCODING), **examples})
    _, _, err = converse("", "--model", "known.pt")
    known = 'It knows 2 questions (/questions lists them), for example "Who wrote Hamlet?" or "Why?"'
    assert f"{known}; it makes up all other answers\n" in err
    assert converse("/questions\n", "--model", "known.pt")[1] == "Who wrote Hamlet?\nWhy?\n"
    unknown = "The checkpoint does not record the questions and answers that it was trained on.\n"
    assert converse("/questions\n")[1] == unknown and converse("France?\n/why\n")[1].endswith(unknown)


def test_a_single_answer_does_not_prepare_fast_decoding(converse, monkeypatch):
    monkeypatch.setattr(TextGenerator, "prepare_fast_decoding", None)
    assert converse("", "--prompt", "France?")[0] == 0


def test_verbose_shows_the_speed_of_a_single_answer(converse):
    _, out, err = converse("", "--prompt", "France?", "--verbose")
    assert out == ANSWER + "\n"
    assert err.endswith(" tokens per second\n")


def test_prompt_prints_only_the_answer_on_stdout(folder):
    command = [sys.executable, "-X", "importtime", SCRIPT, "--prompt", "What is the capital of France?"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n")
    assert "note: Model: checkpoints/instruction_tuned" in done.stderr
    assert "src.chat.terminal" in done.stderr  # stderr lists the imports
    assert "prompt_toolkit" not in done.stderr


def test_a_raw_model_continues_the_prompt(converse):
    code, out, err = converse("", "--model", "scratch", "--prompt", "Paris ")
    assert (code, out) == (0, ANSWER.removeprefix("Paris") + "\n")
    assert "note: This is a raw language model: it continues your text" in err


def test_a_raw_model_has_no_questions_to_list_or_to_compare_with(converse):
    raw = "This is a raw model: it was trained on running text, not on questions and answers.\n"
    assert converse("/questions\n", "--model", "scratch")[1] == raw
    assert converse("Paris\n/why\n", "--model", "scratch")[1].endswith(raw)


@pytest.mark.parametrize("prompt", ["none", "off", "/quit"])
def test_prompt_is_never_a_command_or_none(converse, prompt):
    assert converse("", "--prompt", prompt)[:2] == (0, ANSWER + "\n")


def test_a_seed_makes_answers_repeatable(converse):
    def answer(seed: str) -> str:
        wild = ("--temperature", "60", "--top-k", "none", "--top-p", "off", "--max-tokens", "20")
        return converse("", "--prompt", "Hello", "--seed", seed, *wild)[1]

    assert answer("1") == answer("1") != answer("2")


def test_an_answer_that_outgrows_the_context_gives_one_note(converse):
    _, out, err = converse("Hello\n", "--temperature", "60", "--top-k", "none", "--seed", "1", "--max-tokens", "200")
    assert err.count("The text outgrew the context of 64 tokens") == 1
    assert "context of 64" not in out


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--model", "dpo"], "; make it with python dpo_train.py"),
        (["--model", "nowhere.pt"], "nowhere.pt: no such file in "),
        (["--model", "foreign.pt"], "foreign.pt: the model was tuned with the prompt template 'another template'"),
        (["--device", "mps"], "--device mps: not available on this machine"),
    ],
)
def test_an_unusable_model_is_a_one_line_error_with_exit_code_1(folder, monkeypatch, capsys, argv, reason):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["chat.py", "--prompt", "Hello", *argv])
    with pytest.raises(SystemExit) as exited:
        run_script(chat.main)
    out, err = capsys.readouterr()
    assert (exited.value.code, out) == (1, "")
    last = err.splitlines()[-1].replace("\\", "/")
    assert last.startswith("error: ") and reason in last


def test_without_any_model_the_error_names_the_folder_and_the_command_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("src.stages._scripts_folder", lambda: tmp_path / "project")
    with pytest.raises(
        FileNotFoundError, match=f"in {re.escape(str(tmp_path))} or in .*project; make it with python main.py"
    ):
        chat.main(["--prompt", "Hello"])


def test_a_model_beside_the_script_is_found_from_any_folder(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("src.stages._scripts_folder", lambda: folder)
    assert chat.main(["What", "is", "the capital?"]) == 0  # words without a flag are the prompt
    out, err = capsys.readouterr()
    assert out == ANSWER + "\n"
    assert f"Model: {folder / 'checkpoints/instruction_tuned'} (best available" in err


def test_typed_lines_next_to_the_script_are_found_from_any_folder(converse, tmp_path, monkeypatch):
    typed = tmp_path / "logs/sessions/typed_lines"
    typed.parent.mkdir(parents=True)
    typed.write_text("+Hello\n", encoding="utf-8")
    monkeypatch.setattr("src.stages._scripts_folder", lambda: tmp_path)
    assert "Deleted 1 typed line" in converse("/forget typed\n")[1]


def test_help_and_wrong_flags_import_no_pytorch_and_no_tokenizer(tmp_path):
    for script in (SCRIPT, SCRIPT.with_name("sk_chat.py")):
        for argument, code in (("--help", 0), ("--temprature", 2)):
            command = [sys.executable, "-X", "importtime", script, argument]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
            assert done.returncode == code
            imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
            assert "src.chat.flags" in imported
            assert not {"torch", "tiktoken", "semantic_kernel", "prompt_toolkit"} & imported


@pytest.fixture
def terminal():
    """(master, slave) descriptors of a pseudo-terminal."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_keys_typed_while_the_model_loads_wait_unechoed_for_the_first_prompt(folder, monkeypatch, terminal):
    termios = pytest.importorskip("termios")
    master, slave = terminal
    waiting = []

    def load(*args, **options):
        assert not termios.tcgetattr(slave)[3] & termios.ECHO
        os.write(master, b"Who?\rWhy")
        return load_chat_model(*args, **options)

    def first_prompt(session, model, flags, screen):
        with screen.type_ahead.paused():
            assert termios.tcgetattr(slave)[3] & termios.ECHO
            waiting.extend([screen.type_ahead.take(), screen.type_ahead.take()])
        return 0

    monkeypatch.chdir(folder)
    monkeypatch.setattr(chat, "load_chat_model", load)
    monkeypatch.setattr(chat, "chat", first_prompt)
    with open(slave, encoding="utf-8", closefd=False) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert chat.main([]) == 0
    assert waiting == ["Who?", "Why"]
    assert termios.tcgetattr(slave)[3] & termios.ECHO


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("name", ["chat.py", "sk_chat.py"])
def test_ctrl_c_while_loading_is_one_line_and_shows_typed_keys_again(folder, name, terminal):
    termios = pytest.importorskip("termios")
    _, stdin = terminal
    before = termios.tcgetattr(stdin)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background would ignore it
    command = [sys.executable, "-X", "importtime", SCRIPT.with_name(name)]
    with subprocess.Popen(command, cwd=folder, stdin=stdin, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:  # the imports, as they happen
            if line.endswith(("torch.version\n", "torch.types\n")):
                process.send_signal(signal.SIGINT)
                break
        others = [line for line in process.stderr if line.strip() and not line.startswith("import time:")]
    assert process.returncode == 130
    assert others == ["interrupted; everything saved so far is intact\n"]
    assert termios.tcgetattr(stdin) == before


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (
            ["--temperature", "-1", "--top-k", "0"],
            "--temperature must be a finite number, 0 or higher, got -1; --top-k",
        ),
        (["--top-k", "0"], "--top-k must be a whole number of at least 1, or none to disable it, got 0"),
        (["--max-tokens", "0"], "--max-tokens must be a whole number of at least 1, got 0"),
        (["--top-p", "x"], "--top-p"),
        (["--temprature", "1"], "did you mean --temperature?"),
        (["--device", "tpu"], "--device"),
        (["--quantize", "int8", "--device", "cuda"], "--quantize int8 is for the CPU; remove --device cuda"),
    ],
)
def test_bad_flags_are_a_one_line_error_with_exit_code_2(capsys, argv, reason):
    with pytest.raises(SystemExit) as exited:
        chat.main(argv)
    err = capsys.readouterr().err
    assert exited.value.code == 2
    assert reason in err and err.count("\n") == 1


@pytest.mark.parametrize("prompt", ["", "  "])
def test_an_empty_prompt_is_bad_usage(capsys, monkeypatch, prompt):
    monkeypatch.setattr(sys, "argv", ["chat.py"])
    with pytest.raises(SystemExit) as exited:
        chat.main(["--prompt", prompt])
    assert exited.value.code == 2
    assert capsys.readouterr().err == "chat.py: --prompt is empty; see python chat.py --help\n"


def test_ctrl_c_ends_a_piped_session_with_exit_code_130(converse, monkeypatch):
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once(["Once"], KeyboardInterrupt()))
    assert converse("Tell\nFrance?\n")[:2] == (130, "Assistant: Once\n")


@pytest.mark.parametrize("error", [RuntimeError("no memory\nleft"), MemoryError(), ValueError("prompt id 9")])
def test_a_failed_answer_is_an_error_and_the_chat_continues(converse, monkeypatch, error):
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once(["Once"], error))
    code, out, err = converse("Tell\nFrance?\n")
    assert (code, out) == (1, f"Assistant: Once\nAssistant: {ANSWER}\n")
    reason = " ".join(str(error).split()) or "MemoryError"
    assert f"error: The answer failed: {reason}\n" in err


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\x00\x1b[2J", b"\xed\xa0\x80", b"x" * 100_000, b"{} {0} %s <|endoftext|>", "\U0001f600".encode()]
)
def test_hostile_lines_are_answered_like_others(converse, line):
    assert converse(line + b"\n")[:2] == (0, f"Assistant: {ANSWER}\n")


def test_control_characters_never_reach_the_terminal(converse):
    _, out, _ = converse("Hello\n", "--model", "escape.pt")
    assert out == "Assistant: Red \ufffd[31m alert\ufffd\ufffd!\n"


def test_a_terminal_session_until_ctrl_d(folder, monkeypatch, capsys):
    handlers = {}
    monkeypatch.chdir(folder)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(chat, "is_interactive", lambda: True)
    prepared = []
    monkeypatch.setattr(TextGenerator, "prepare_fast_decoding", lambda generator: prepared.append(generator))
    with terminal_with_keys("France?\r/tokens 2\rgone\x03France?\r\x04"):
        assert chat.main([]) == 0
    assert capsys.readouterr().out == f"{ANSWER}\n\nParis is\n\n"
    assert len(prepared) == 1  # a chat generates many answers
    with pytest.raises(SystemExit) as exited:  # SIGTERM ends the process, even during an answer
        handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert exited.value.code == 130
