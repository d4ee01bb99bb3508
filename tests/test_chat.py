"""chat.py as a user sees it: flags, commands, pipes, a terminal, and errors."""

import dataclasses
import io
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from prompt_toolkit.utils import get_cwidth

import chat
from src.chat.commands import run_command, session_commands
from src.chat.screen import Screen, printable, wrapped
from src.chat.session import ChatSession, ChatSettings
from src.chat.terminal import chat_loop, typed_lines
from src.data.prompts import TEMPLATE
from src.model.generate import TextGenerator
from src.program import run_script
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


@pytest.fixture
def session(model):
    return ChatSession(
        TextGenerator(model, ENCODING), template=TEMPLATE, settings=chat.Flags().settings(), notify=lambda note: None
    )


def test_piped_lines_are_answered_one_after_another(converse):
    code, out, err = converse("\ufeffWhat is the capital of France?\r\n\n   \nAnd again?")
    assert code == 0
    assert out == f"Assistant: {ANSWER}\n" * 2
    assert "You:" not in out + err


def test_an_int8_model_answers_the_same_and_is_labelled(converse):
    code, out, err = converse("What is the capital of France?", "--quantize", "int8", "--temperature", "0")
    assert (code, out) == (0, f"Assistant: {ANSWER}\n")
    assert "on cpu, int8" in err
    assert "int8" not in converse("")[2]


def test_auto_takes_the_best_existing_model_and_says_why(converse, folder):
    tuned = folder / "checkpoints/instruction_tuned/best_model.pt"
    _, _, err = converse()
    assert err.startswith("note: checkpoints/instruction_tuned/best_model.pt, the best that is here (no dpo yet)")
    assert "context of 64 tokens, on " in err
    aligned = folder / "checkpoints/dpo_aligned/best_model.pt"
    aligned.parent.mkdir()
    shutil.copy(tuned, aligned)
    try:
        assert "dpo_aligned/best_model.pt, the best that is here:" in converse()[2]
        assert "instruction_tuned/best_model.pt, sft, as asked:" in converse("", "--model", "sft")[2]
    finally:
        shutil.rmtree(aligned.parent)


@pytest.mark.parametrize(
    ("line", "reply", "field", "value"),
    [
        ("/temp 0.9", "temperature is 0.9", "temperature", 0.9),
        ("/TEMP   0 ", "temperature is 0", "temperature", 0.0),
        ("/topk 50", "top_k is 50", "top_k", 50),
        ("/topk off", "top_k is off", "top_k", None),
        ("/topp 0.95", "top_p is 0.95", "top_p", 0.95),
        ("/topp none", "top_p is off", "top_p", None),
        ("/tokens 200", "max_tokens is 200", "max_tokens", 200),
        ("/penalty 1.2", "repetition_penalty is 1.2", "repetition_penalty", 1.2),
        ("/seed 3", "seed is 3", "seed", 3),
    ],
)
def test_a_command_changes_and_shows_its_setting(session, line, reply, field, value):
    commands = session_commands(session)
    assert run_command(line, commands) == reply
    assert getattr(session.settings, field) == value
    assert run_command(line.split()[0], commands) == reply


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/temp -1", "temperature must be a number of at least 0, got -1.0"),
        ("/temp nan", "temperature must be a number of at least 0, got nan"),
        ("/temp 0,8", "temperature must be a number, got '0,8'"),
        ("/temp off", "temperature must be a number of at least 0, got None"),
        ("/topk 0", "top_k must be a whole number of at least 1, or None to disable it, got 0"),
        ("/topk 2.5", "top_k must be a whole number, got '2.5'"),
        ("/topp 1.5", "top_p must be above 0 and at most 1, or None to disable it, got 1.5"),
        ("/tokens 0", "max_tokens must be a whole number of at least 1, got 0"),
        ("/tokens many words", "max_tokens must be a whole number, got 'many words'"),
        ("/penalty 0", "repetition_penalty must be a number above 0, got 0.0"),
        ("/seed -1", "seed must be a whole number from 0 to 2**63 - 1, or None for a new one each time, got -1"),
    ],
)
def test_a_bad_value_is_a_one_line_reply_and_changes_nothing(session, line, reason):
    before = session.settings
    assert run_command(line, session_commands(session)) == reason
    assert session.settings == before


def test_help_lists_every_command_with_its_current_value(session):
    commands = session_commands(session)
    run_command("/temp 0.25", commands)
    listed = run_command("/help", commands)
    for name in "/quit /exit /reset /temp /topk /topp /tokens /penalty /seed /help".split():
        assert re.search(rf"^{name} ", listed, re.MULTILINE)
    assert re.search(r"^/temp .*\(now 0.25\)$", listed, re.MULTILINE)
    assert re.search(r"^/topk .*\(now 40\)$", listed, re.MULTILINE)
    assert re.search(r"^/seed .*\(now off\)$", listed, re.MULTILINE)


def test_every_setting_has_a_flag_and_a_command(session):
    flags = {field.name: field for field in dataclasses.fields(chat.Flags)}
    commands = session_commands(session)
    for setting in dataclasses.fields(ChatSettings):
        assert (flags[setting.name].default, flags[setting.name].metadata) == (setting.default, setting.metadata)
        assert setting.metadata["help"] in commands[setting.metadata["command"]].help
    changed = ChatSettings(temperature=0.1, top_k=2, top_p=0.3, repetition_penalty=1.4, max_tokens=5, seed=6)
    assert chat.Flags(**dataclasses.asdict(changed)).settings() == changed


def test_an_unknown_command_suggests_the_nearest(session):
    commands = session_commands(session)
    assert run_command("/tmep 1", commands).startswith("/tmep: unknown command; did you mean /temp? ")
    assert run_command("/usr/bin", commands).startswith("/usr/bin: unknown command; /help lists the commands ")


@pytest.mark.parametrize("leave", ["/quit", "/exit", " /Quit now"])
def test_quit_and_exit_leave(converse, leave):
    assert converse(f"Hello\n{leave}\nHello\n")[:2] == (0, f"Assistant: {ANSWER}\n")


def test_reset_clears_the_conversation(session, capsys):
    chat_loop(session, Screen(interactive=False), session_commands(session), ["Hello", "/reset"])
    assert session.messages == ()
    assert capsys.readouterr().out == f"Assistant: {ANSWER}\nconversation cleared\n"


def test_two_slashes_send_a_message_that_starts_with_one(session):
    chat_loop(session, Screen(interactive=False), session_commands(session), [" //usr/bin is what?"])
    assert [message.text for message in session.messages] == ["/usr/bin is what?", ANSWER]


def test_a_piped_session_prints_a_transcript(converse):
    code, out, err = converse("\ufeff/tokens 3\nFrance?\n/tokens 0\n/tokens 50\nFrance?\n/reset\n")
    assert code == 0
    assert out.splitlines() == [
        "max_tokens is 3",
        "Assistant: Paris is the",
        "max_tokens must be a whole number of at least 1, got 0",
        "max_tokens is 50",
        f"Assistant: {ANSWER}",
        "conversation cleared",
    ]
    assert "note: the answer was cut off after 3 tokens\n" in err


def test_a_single_answer_does_not_prepare_fast_decoding(converse, monkeypatch):
    monkeypatch.setattr(TextGenerator, "prepare_fast_decoding", None)
    assert converse("", "--prompt", "France?")[0] == 0


def test_prompt_prints_only_the_answer_on_stdout(folder):
    command = [sys.executable, "-X", "importtime", SCRIPT, "--prompt", "What is the capital of France?"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n")
    assert "note: checkpoints/instruction_tuned/best_model.pt" in done.stderr
    assert "src.chat.terminal" in done.stderr  # stderr lists the imports
    assert "prompt_toolkit" not in done.stderr


def test_a_raw_model_continues_the_prompt(converse):
    code, out, err = converse("", "--model", "scratch", "--prompt", "Paris ")
    assert (code, out) == (0, ANSWER.removeprefix("Paris") + "\n")
    assert "note: this is a raw language model: it continues your text" in err


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
    assert err.count("the context of 64 tokens is full") == 1
    assert "context of 64" not in out


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--model", "dpo"], "dpo_aligned/best_model.pt: not there yet; make it with python dpo_train.py"),
        (["--model", "nowhere.pt"], "nowhere.pt: no such file; "),
        (["--model", "foreign.pt"], "foreign.pt: the model was tuned with the prompt template 'another template'"),
        (["--device", "mps"], "--device mps: not available here"),
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


def test_without_any_model_the_error_names_the_command_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="make it with python main.py"):
        chat.main(["--prompt", "Hello"])


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--temperature", "-1", "--top-k", "0"], "temperature must be a number of at least 0, got -1.0; top_k"),
        (["--max-tokens", "0"], "max_tokens must be a whole number of at least 1, got 0"),
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


def test_ctrl_c_stops_an_answer_and_not_the_chat(session, monkeypatch, capsys):
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once(["Once upon ", "a time "], KeyboardInterrupt()))
    with terminal_with_keys():
        chat_loop(session, Screen(interactive=True), session_commands(session), ["Tell", "France?"])
    assert [message.text for message in session.messages] == ["Tell", "Once upon a time", "France?", ANSWER]
    assert capsys.readouterr().out == f"Once upon a \n\n{ANSWER}\n\n"


def test_a_broken_pipe_keeps_the_partial_answer(session, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            if "Paris" in text:
                raise BrokenPipeError
            return len(text)

    answer = session.reply("France?")
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        Screen(interactive=False).show_answer(answer)
    assert session.messages[1].text == "Paris"


def test_ctrl_c_ends_a_piped_session_with_exit_code_130(converse, monkeypatch):
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once(["Once"], KeyboardInterrupt()))
    assert converse("Tell\nFrance?\n")[:2] == (130, "Assistant: Once\n")


@pytest.mark.parametrize("error", [RuntimeError("no memory\nleft"), MemoryError(), ValueError("prompt id 9")])
def test_a_failed_answer_is_a_note_and_the_chat_continues(converse, monkeypatch, error):
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once(["Once"], error))
    code, out, err = converse("Tell\nFrance?\n")
    assert (code, out) == (0, f"Assistant: Once\nAssistant: {ANSWER}\n")
    reason = " ".join(str(error).split()) or "MemoryError"
    assert f"note: no answer: {reason}\n" in err


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\x00\x1b[2J", b"\xed\xa0\x80", b"x" * 100_000, b"{} {0} %s <|endoftext|>", "\U0001f600".encode()]
)
def test_hostile_lines_are_answered_like_others(converse, line):
    assert converse(line + b"\n")[:2] == (0, f"Assistant: {ANSWER}\n")


def test_control_characters_never_reach_the_terminal(converse):
    _, out, _ = converse("Hello\n", "--model", "escape.pt")
    assert out == "Assistant: Red \ufffd[31m alert\ufffd\ufffd!\n"


def test_printable_keeps_text_and_replaces_control_characters():
    text = "caf\u00e9 \u4e16\u754c \U0001f468\u200d\U0001f469\n"
    assert printable(text) == text
    assert printable("a\x00b\x1b]0;title\x07\x7f\x9b") == "a\ufffdb\ufffd]0;title\ufffd\ufffd\ufffd"
    assert printable("one\r\ntwo\tthree \u202eevil\ud800") == "one\ntwo    three \ufffdevil\ufffd"


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


def test_typed_lines_can_be_edited_and_cleared(session):
    left = "\x1b[D"
    with terminal_with_keys(f"helo{left}l\r" + "cleared\x03" + "\x03" + "bye\r" + "\x04"):
        assert list(typed_lines(Screen(interactive=True), session_commands(session))) == ["hello", "bye"]


def test_wrapping_does_not_split_words():
    text = "Once upon a time there was a king, " * 4 + "and\n\nthe end" + "\u4e16\u754c" * 20
    pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
    for width in range(14, 60):
        shown = "".join(wrapped(pieces, width, 11))
        first, *others = shown.split("\n")
        assert get_cwidth(first) <= width - 11
        assert all(get_cwidth(line) <= width for line in others)
        assert shown.split()[:34] == text.split()[:34]
        assert "".join(shown.split()) == "".join(text.split())
    assert "".join(wrapped(pieces, 1000, 11)) == text


def test_wrapped_answers_stream_word_by_word():
    def pieces():
        yield from ["One", " two", " thr"]
        raise AssertionError("asked for more before showing what is there")

    shown = wrapped(pieces(), 80, 0)
    assert [next(shown) for _ in range(4)] == ["One", " ", "two", " "]


def test_a_word_longer_than_the_line_is_not_held_back():
    for text in ("x" * 25, "\u4e16" * 25):
        shown = list(wrapped([text], 10, 0))
        assert "".join(shown).replace("\n", "") == text
        assert max(map(get_cwidth, shown)) <= 10
