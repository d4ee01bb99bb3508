"""Replies of the commands in unusual states. tests/test_sk_chat.py runs every command."""

from dataclasses import replace
from pathlib import Path

import pytest

from src.chat.command_table import CommandFailed, run_command
from src.chat.commands import Chat
from src.chat.flags import ChatFlags
from src.chat.screen import Screen
from src.chat.start import LoadedChatModel
from src.checkpoint import LoadedModel
from src.data.prompts import TEMPLATE
from src.sk_integration.commands import assistant_commands
from tests.fakes import ENCODING, ScriptedGenerator
from tests.fakes_sk import scripted_assistant


@pytest.fixture
def chat(tmp_path):
    """(assistant, a function that runs a line as a command)"""
    assistant, generator, _ = scripted_assistant(tmp_path, "word " * 18, context_length=64)
    metadata = {"template": TEMPLATE}
    model = LoadedModel(generator.model, metadata, generator.encoding, Path("models/best_model.pt"), "as requested")
    chat = Chat(
        assistant,
        LoadedChatModel(generator, model, "CPU"),
        ChatFlags(),
        Screen(interactive=False),
        tmp_path / "typed_lines",
    )
    chat.commands += assistant_commands(chat, assistant)
    yield assistant, lambda line: run_command(line, chat.commands)
    assistant.close()


@pytest.mark.parametrize("line", ["/forget 1", "/forget all", "/forget all yes"])
def test_an_empty_memory_has_nothing_to_forget(chat, line):
    assistant, run = chat
    assert run(line) == "There are no saved facts."
    assistant.memory.store("I ski.", "talk")
    assert "There are no" not in run(line)


@pytest.mark.parametrize(
    ("question", "tokens"),
    [
        ("Tell me of your day", "34 of 44 prompt tokens used; 10 left for your next message."),
        (
            "Tell me of your day, from the morning on and at some length.",
            "full. The latest turns take 44 tokens; a prompt can hold 44. Your next message drops the oldest turns.",
        ),
        (
            "Tell me of your day, from the morning on and at some length. Leave nothing out.",
            "full. The latest turns take 48 tokens; a prompt can hold 44. Your next message drops the oldest turns.",
        ),
    ],
)
def test_memory_shows_the_token_budget(chat, question, tokens):
    assistant, run = chat
    "".join(assistant.reply(question))
    assert f"\nContext: {tokens}" in run("/memory")


def test_a_system_message_is_in_the_prompt_and_can_be_removed(chat):
    assistant, run = chat
    assert run("/system Answer briefly.") == "System message: Answer briefly."
    "".join(assistant.reply("Hello"))
    prompt = assistant.service.last_exchange.prompt
    assert ENCODING.decode(prompt).startswith("### System:\nAnswer briefly.\n")
    with pytest.raises(
        CommandFailed, match="the system message is too long: it takes .* limit is 32, half of the context"
    ):
        run("/system " + "very long " * 50)
    assert assistant.system == "Answer briefly."
    assert run("/system off") == "The system message is removed."


def test_history_shows_every_turn(chat):
    assistant, run = chat
    "".join(assistant.reply("Hello"))
    assert run("/history") == "You: Hello\nAssistant: " + "word " * 17 + "word"


def test_another_model_continues_the_conversation(chat):
    assistant, _ = chat
    "".join(assistant.reply("Hello"))
    generator = ScriptedGenerator("Rome.")
    model = LoadedModel(generator.model, {"template": TEMPLATE}, ENCODING, Path("x.pt"), "")
    assistant.use_model(LoadedChatModel(generator, model, "CPU"))
    assert "".join(assistant.reply("Italy?")) == "Rome."
    assert "Hello" in generator.prompt_texts[0]
    assistant.set_system("Be brief.")
    raw = LoadedChatModel(generator, replace(model, metadata={"template": None}), "CPU")
    with pytest.raises(ValueError, match="a raw model takes no system message; /system off removes it"):
        assistant.use_model(raw)
    assert not assistant.service.is_raw


def test_sessions_show_their_first_message_and_are_found_by_a_text(chat, monkeypatch):
    assistant, run = chat
    monkeypatch.setenv("COLUMNS", "60")
    "".join(assistant.reply("Tell me of your day, from the morning on and at some length."))
    (line,) = run("/sessions").splitlines()
    assert line.startswith("* talk     1 turn  20") and line.endswith("  Tell me of your day,...") and len(line) <= 60
    assert run("/sessions MORNING  on") == line
    assert run("/sessions evening") == "No session contains 'evening'. /sessions lists all."
    monkeypatch.setenv("COLUMNS", "48")
    name, details = run("/sessions").splitlines()
    assert name == "* talk" and details.startswith("    1 turn  20") and details.endswith("  Tell me of your...")
    assert len(details) <= 48


def test_a_long_fact_is_indented_below_its_number(chat, monkeypatch):
    assistant, run = chat
    monkeypatch.setenv("COLUMNS", "50")
    assistant.memory.store("My grandmother kept bees behind the old mill.", "talk")
    first, second = run("/memory").splitlines()[-3:-1]
    assert first == "  1  My grandmother kept bees behind the old mill." and second.startswith("     (talk, 20")


def test_a_long_message_is_shortened_when_its_session_is_opened(chat):
    assistant, run = chat
    "".join(assistant.reply("start " + "long " * 500))
    run("/new other")
    assert "long long ... (2,506 characters)\nAssistant: word" in run("/load talk")
    assert "long long ..." not in run("/history")


def test_only_existing_sessions_are_loaded(chat):
    _, run = chat
    assert run("/load talk").startswith("This is session talk.")
    with pytest.raises(CommandFailed, match="there is no session other; /sessions lists them; /new other starts a"):
        run("/load other")
    run("/new")
    run("/save default")
    with pytest.raises(CommandFailed, match="no session defualt; did you mean default. /new defualt starts a session"):
        run("/load defualt")


def test_facts_are_listed_under_the_new_name_of_their_session(chat):
    assistant, run = chat
    "".join(assistant.reply("My cat is called Miso."))
    run("/rename main")
    assert "(main, 20" in run("/memory")


def test_a_deletion_is_confirmed_first(chat):
    assistant, run = chat
    "".join(assistant.reply("Hello"))
    run("/new other")
    question = run("/delete talk")
    assert question == "This deletes session talk permanently. To confirm, type yes." and assistant.store.exists("talk")
    assert run(question.command) == "Session talk is deleted." and not assistant.store.exists("talk")
    assistant.memory.store("I ski.", "other")
    assert run("/forget all").command == "/forget all yes"


def test_settings_change_what_is_remembered_and_every_other_setting(chat):
    _, run = chat
    assert run("/settings remember off") == "remember is off." and run("/settings temp 0.5") == "temperature is 0.5."
    with pytest.raises(CommandFailed, match="remember must be ask, auto or off, got 'never'"):
        run("/settings remember never")
