"""sk_chat.py from the command line to its files: restarts, shared facts, damaged files, concurrent programs."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import sk_chat
from src.data.prompts import TEMPLATE
from src.model.generate import TextGenerator
from tests.fakes import ANSWER, answering_model, save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, answering_model(ANSWER), TEMPLATE)
    return path


@pytest.fixture
def start(model, tmp_path, monkeypatch, capsys):
    """Start the program and pipe lines to it: (stdout, stderr, the prompts of the model)."""
    prompts = []
    stream = TextGenerator.stream

    def recording_stream(self, prompt, *args, **settings):
        prompts.append(self.encoding.decode(prompt))
        return stream(self, prompt, *args, **settings)

    monkeypatch.setattr(TextGenerator, "stream", recording_stream)

    def start(typed: str, *argv: str):
        prompts.clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8"))
        flags = ["--model", str(model), "--memory-dir", str(tmp_path / "memory"), "--max-tokens", "20", *argv]
        assert sk_chat.main(flags) == 0
        return *capsys.readouterr(), list(prompts)

    return start


def test_conversation_and_facts_survive_a_restart(start):
    _, err, _ = start("My cat is called Miso.\n", "--session", "monday")
    assert "note: Remembered: My cat is called Miso." in err
    _, _, [prompt] = start("And now?\n", "--session", "monday")
    assert "My cat is called Miso." in prompt and ANSWER in prompt and prompt.count("### Instruction:") == 2
    _, err, [prompt] = start("What is my cat called?\n", "--session", "tuesday")
    assert prompt.startswith("### Instruction:\nWhat is my cat")  # the model was not trained with facts
    assert "note: From memory: My cat is called Miso." in err
    out, err, [prompt] = start("/forget 1\nWhat is my cat called?\n", "--session", "wednesday")
    assert "Forgot: My cat is called Miso." in out and "From memory" not in err
    assert prompt.startswith("### Instruction:")


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 1}', b"\xff" * 100])
def test_damaged_files_are_renamed_and_the_chat_continues(start, tmp_path, damage):
    start("My cat is called Miso.\n")
    folder = tmp_path / "memory"
    (folder / "default.json").write_bytes(damage)
    (folder / "memory.sqlite3").write_bytes(b"no database")
    out, err, _ = start("My dog is called Rex.\n/memory\n")
    assert out.startswith(f"Assistant: {ANSWER}\nSession default: 1 turn.")
    assert "1  My dog is called Rex." in out
    for name, content in (("default.damaged-1.json", damage), ("memory.damaged-1.sqlite3", b"no database")):
        assert (folder / name).read_bytes() == content
        assert f"renamed to {name}" in err
    assert "Traceback" not in err


def test_two_programs_in_one_session_lose_nothing(model, tmp_path):
    script, folder = Path(sk_chat.__file__), tmp_path / "logs/sessions"
    command = [sys.executable, script, "--model", model, "--memory-dir", folder, "--session", "both", "--prompt"]
    programs = [
        subprocess.Popen([*command, f"I am number {n}."], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for n in (1, 2)
    ]
    for program in programs:
        out, err = program.communicate(timeout=120)
        assert (program.returncode, out.decode().strip()) == (0, ANSWER), err.decode()
    saved = json.loads((folder / "both.json").read_text("utf-8"))["messages"]
    assert sorted(message["text"] for message in saved[::2]) == ["I am number 1.", "I am number 2."]
    assert [message["text"] for message in saved[1::2]] == [ANSWER, ANSWER]
