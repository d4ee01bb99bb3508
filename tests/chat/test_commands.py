"""The commands that every chat has."""

import dataclasses

import pytest

from src.chat.command_table import CommandFailed, run_command
from src.chat.commands import shown_turns
from src.chat.flags import ChatFlags, ChatSettings
from src.chat.messages import cut_off_note, dropped_note
from src.chat.start import LoadedChatModel
from src.memory.typed_history import TypedHistory
from src.model.generate import TextGenerator
from tests.fakes import ANSWER, answering_model, save_model, stream_that_fails_once


@pytest.fixture
def run(chat):
    """Run a command line, and return its reply."""
    return lambda line: run_command(line, chat.commands)


def ask(chat, *messages):
    for message in messages:
        assert "".join(chat.backend.reply(message)) == ANSWER


@pytest.mark.parametrize(
    ("line", "reply", "field", "value"),
    [
        ("/temp 0.9", "temperature is 0.9.", "temperature", 0.9),
        ("/TEMPERATURE   0 ", "temperature is 0.", "temperature", 0.0),
        ("/topk 50", "top-k is 50.", "top_k", 50),
        ("/top-k off", "top-k is off.", "top_k", None),
        ("/top_p 0.95", "top-p is 0.95.", "top_p", 0.95),
        ("/topp none", "top-p is off.", "top_p", None),
        ("/tokens 20", "max-tokens is 20.", "max_tokens", 20),
        ("/max 20", "max-tokens is 20.", "max_tokens", 20),
        ("/penalty 1.2", "repetition-penalty is 1.2.", "repetition_penalty", 1.2),
        ("/seed 3", "seed is 3.", "seed", 3),
        ("/temp 99", "temperature is 99. Above 2, the choice of tokens is close to random.", "temperature", 99.0),
        (
            "/tokens 65",
            "max-tokens is 65. An answer that is longer than the context, 64 tokens, loses sight of your message.",
            "max_tokens",
            65,
        ),
    ],
)
def test_a_command_changes_and_shows_its_setting(chat, run, line, reply, field, value):
    assert run(line) == reply
    assert getattr(chat.backend.settings, field) == value
    assert run(line.split()[0]) == reply


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/temp -1", "/temperature must be a finite number, 0 or higher, got '-1'"),
        ("/temp nan", "/temperature must be a finite number, 0 or higher, got 'nan'"),
        ("/temp 1e400", "/temperature must be a finite number, 0 or higher, got '1e400'"),
        ("/temp 0,8", "/temperature must be a finite number, 0 or higher, got '0,8'"),
        ("/temp off", "/temperature must be a finite number, 0 or higher, got 'off'"),
        ("/topk 0", "/top-k must be a whole number of at least 1, or off to disable it, got '0'"),
        ("/topk 2.5", "/top-k must be a whole number of at least 1, or off to disable it, got '2.5'"),
        ("/topk 2 3", "/top-k must be a whole number of at least 1, or off to disable it, got '2 3'"),
        ("/topp 1.5", "/top-p must be above 0 and at most 1, or off to disable it, got '1.5'"),
        ("/tokens 0", "/max-tokens must be a whole number of at least 1, got '0'"),
        ("/penalty 0", "/repetition-penalty must be a number above 0, got '0'"),
        ("/history 1 2", "/history takes a number of turns, at least 1, got '1 2'"),
        ("/verbose on off", "/verbose takes on or off, got 'on off'"),
        ("/forget typed now", "/forget typed deletes your typed lines (the arrow-key history)"),
        ("/new my trip", "/new takes no argument, got 'my trip'"),
        ("/exit now", "/exit takes no argument, got 'now'"),
        ("/settings tone 3", "there is no setting 'tone' to change in the chat; /help lists them"),
        ("/seed -1", "/seed must be a whole number from 0 to 2**63 - 1, or off for a new one each time, got '-1'"),
        ("/history x", "/history takes a number of turns, at least 1, got 'x'"),
        ("/history 0", "/history takes a number of turns, at least 1, got '0'"),
        ("/verbose 3", "/verbose takes on or off, got '3'"),
        ("/quit now", "/quit takes no argument, got 'now'"),
        ("/why not", "/why takes no argument, got 'not'"),
        ("/why", "there is no answer to explain yet; ask something first"),
        ("/undo", "there is nothing to take back yet"),
    ],
)
def test_a_command_that_fails_says_why_and_changes_nothing(chat, run, line, reason, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # without models
    before = chat.backend.settings
    with pytest.raises(CommandFailed) as failed:
        run(line)
    assert str(failed.value) == reason
    assert chat.backend.settings == before


def test_every_setting_has_a_flag_and_a_command_of_one_name(chat):
    flags = {field.name: field for field in dataclasses.fields(ChatFlags)}
    commands = {command.name: command for command in chat.commands}
    for setting in dataclasses.fields(ChatSettings):
        assert (flags[setting.name].default, flags[setting.name].metadata) == (setting.default, setting.metadata)
        command = commands["/" + setting.name.replace("_", "-")]
        assert command.help == setting.metadata["help"].replace("none ", "off ")
        assert command.aliases == tuple("/" + alias for alias in setting.metadata["aliases"])
    changed = ChatSettings(temperature=0.1, top_k=2, top_p=0.3, repetition_penalty=1.4, max_tokens=5, seed=6)
    assert ChatFlags(**dataclasses.asdict(changed)).settings() == changed


def test_settings_shows_all_of_them(run):
    run("/topk off")
    assert "temperature         0.7\ntop-k               off\n" in run("/settings")
    assert run("/settings").endswith("verbose             off\nsystem              off")
    assert run("/settings topk 7") == "top-k is 7." and run("/settings Max_Tokens 9") == "max-tokens is 9."
    assert run("/settings temp 0.5") == "temperature is 0.5." and run("/settings verbose on") == "verbose is on."
    assert run("/settings system Be brief.") == "System message: Be brief."
    assert run("/settings").endswith("verbose             on\nsystem              Be brief.")


def test_help_lists_every_command_with_its_argument_and_value(chat, run):
    run("/temp 0.25")
    listed = run("/help").splitlines()
    for command in chat.commands:
        assert any(line.startswith(command.usage) for line in listed)
    assert "flattens it (now 0.25)" in " ".join(run("/help").split())  # the width of the window breaks lines


def test_help_shows_one_command(run):
    assert run("/help system") == run("/help /sys") == "/system [TEXT]  show or set the system message; off removes it"
    with pytest.raises(CommandFailed, match="Unknown command /foo"):
        run("/help foo")


def test_history_shows_all_turns_or_the_last_ones(chat, run):
    assert run("/history") == "The conversation is empty."
    ask(chat, "First?", "Second?")
    assert run("/history") == f"You: First?\nAssistant: {ANSWER}\n\nYou: Second?\nAssistant: {ANSWER}"
    assert run("/history 1") == f"You: Second?\nAssistant: {ANSWER}"


def test_turns_that_left_the_context_are_shown_counted_and_taken_back(chat, run):
    ask(chat, *[f"Question number {n}, and it is a long one?" for n in range(1, 5)])
    assert len(chat.backend.messages) == 2
    assert run("/history").count("You: Question number") == 4
    assert run("/memory").endswith("\nThe model has forgotten the oldest 3 turns.")
    for n in (4, 3, 2):
        assert run("/undo").startswith(f'Took back "Question number {n}')
    assert run("/memory").endswith("\nThe model has forgotten the oldest turn.")
    assert chat.backend.messages == () and run("/redo").startswith('"Question number 2')
    assert len(chat.backend.messages) == 2


def test_memory_explains_what_is_reserved(chat, run):
    assert run("/memory").splitlines() == [
        "The conversation is empty.",
        "Context: 0 of 32 prompt tokens used; 32 left for your next message.",
        "The context has 64 tokens; 32 of them are reserved for the answer (max-tokens 150, but at most half of the "
        "context).",
    ]
    run("/tokens 10")
    assert "10 of them are reserved for the answer (max-tokens 10)." in run("/memory")
    ask(chat, "France?")
    assert run("/memory").startswith("The conversation has 1 turn.\nContext: ")


def test_undo_takes_back_a_turn_a_retry_and_a_reset(chat, run):
    ask(chat, "First?", "Second?")
    assert run("/undo") == 'Took back "Second?"; /redo brings it back.'
    assert [message for message, _ in chat.backend.turns] == ["First?"]
    assert run("/redo") == '"Second?" is back.'
    assert run("/reset") == "The conversation is cleared. /undo brings it back."
    assert run("/history") == "The conversation is empty."
    assert run("/undo") == "The conversation is back."
    assert len(chat.backend.turns) == 2
    [(label, pieces)] = run("/retry")
    assert (label, "".join(pieces)) == ("Assistant: ", ANSWER)
    assert len(chat.backend.turns) == 2
    assert run("/undo") == 'The earlier answer to "Second?" is back; /redo brings back the later one.'
    assert run("/redo") == 'The later answer to "Second?" is back.'


@pytest.mark.parametrize(("setting", "fix"), [("/temp 0", "/temperature 0.7"), ("/seed 4", "/seed off")])
def test_retry_notes_that_the_settings_repeat_the_answer(chat, run, capsys, setting, fix):
    ask(chat, "First?")
    run(setting)
    run("/retry")
    assert capsys.readouterr().err == ""  # the last answer had other settings
    ask(chat, "Second?")
    run("/retry")
    assert f"ame settings: expect the same answer. {fix} varies it\n" in capsys.readouterr().err.replace(
        "seed and ", ""
    )


def test_a_system_message_can_be_shown_set_and_removed(chat, run):
    assert run("/system") == "There is no system message."
    assert run("/system Answer briefly.") == "System message: Answer briefly."
    ask(chat, "France?")
    assert "### System:\nAnswer briefly." in chat.model.generator.encoding.decode(chat.backend.last_exchange.prompt)
    with pytest.raises(CommandFailed, match="the system message is too long: it takes .* limit is 32, half of"):
        run("/system " + "very long " * 50)
    assert run("/system") == "System message: Answer briefly."
    assert run("/new").endswith("The system message stays; /system off removes it.")
    assert run("/system off") == "The system message is removed."


def test_why_shows_the_tokens_and_where_the_answer_comes_from(chat, run):
    ask(chat, "What is the capital of France?")
    shown = "".join(text for _, text in run("/why").parts)
    assert "  'Paris'      100.0%  " in shown
    assert shown.endswith('word for word the answer to "What is the capital of France?" in my.json.')


def test_why_explains_the_earlier_answer_if_the_next_was_stopped_before_its_first_word(chat, run, monkeypatch):
    ask(chat, "France?")
    exchange = chat.backend.last_exchange
    monkeypatch.setattr(TextGenerator, "stream", stream_that_fails_once([], KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        "".join(chat.backend.reply("Spain?"))
    assert run("/why") and chat.backend.last_exchange is exchange


@pytest.mark.parametrize("leave", ["/undo", "/new", "/reset", "/model"])
def test_why_explains_no_answer_that_is_gone_or_another_models(chat, run, tmp_path, leave):
    ask(chat, "France?", "Spain?")
    save_model(tmp_path / "raw.pt", answering_model("Rome."), None)
    run(f"/model {tmp_path / 'raw.pt'}" if leave == "/model" else leave)
    with pytest.raises(CommandFailed, match="explains only the newest answer|no answer to explain yet"):
        run("/why")
    if leave != "/model":
        run("/redo" if leave == "/undo" else "/undo")
        assert run("/why")


def test_model_switches_and_keeps_the_conversation(chat, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("/model").endswith("\n/model PATH switches to another model")
    save_model(tmp_path / "checkpoints/scratch/best_model.pt", answering_model("Rome."), None)
    ask(chat, "France?")
    assert "  scratch     checkpoints" in run("/model")
    assert run("/model Scratch").startswith("Model: checkpoints")
    assert isinstance(chat.model, LoadedChatModel) and chat.backend.is_raw
    assert "".join(chat.backend.reply("Italy?\n")) == "Rome."
    assert [message for message, _ in chat.backend.turns] == ["France?", "Italy?\n"]
    with pytest.raises(CommandFailed, match="nowhere: no such file in .*; pass scratch, or the path of a"):
        run("/model nowhere")
    with pytest.raises(CommandFailed, match="a raw model takes no system message"):
        run("/system Be brief.")


def test_a_raw_model_gets_back_the_turns_that_left_the_context(chat, run, tmp_path):
    save_model(tmp_path / "raw.pt", answering_model("Rome."), None)
    ask(chat, "France? " * 9, "Spain? " * 9)
    assert "The model has forgotten the oldest turn." in run("/memory")
    run(f"/model {tmp_path / 'raw.pt'}")
    assert run("/memory").splitlines()[1].endswith("tokens; the model sees only the last 32.")
    assert chat.backend.dropped_messages == 0


def test_a_raw_model_is_refused_while_there_is_a_system_message(chat, run, tmp_path):
    save_model(tmp_path / "raw.pt", answering_model("Rome."), None)
    run("/system Be brief.")
    with pytest.raises(CommandFailed, match="a raw model takes no system message; /system off removes it"):
        run(f"/model {tmp_path / 'raw.pt'}")
    assert not chat.backend.is_raw


def test_verbose_is_switched(chat, run):
    assert run("/verbose") == "verbose is off."
    assert run("/verbose on") == "verbose is on."
    assert chat.screen.verbose


def test_typed_lines_are_named_and_deleted(chat):
    history = TypedHistory(chat.typed_lines, pytest.fail)
    assert run_command("/forget typed", chat.commands) == "There are no typed lines."
    "".join(chat.backend.reply("Hello"))
    history.store_string("Hello")
    assert run_command("/reset", chat.commands).endswith("/forget typed empties it.")
    assert run_command("/forget typed", chat.commands) == "Deleted 1 typed line from the arrow-key history."
    assert chat.typed_lines.read_bytes() == b""
    assert "typed" not in run_command("/reset", chat.commands)


def test_the_models_beside_the_scripts_are_listed(chat, monkeypatch, tmp_path):
    beside = tmp_path / "checkpoints" / "instruction_tuned" / "best_model.pt"
    beside.parent.mkdir(parents=True)
    beside.touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr("src.stages._scripts_folder", lambda: tmp_path)
    assert run_command("/model", chat.commands).endswith(f"  sft         {beside.parent}")


def test_the_answers_of_a_raw_model_are_shown_without_their_first_space():
    assert shown_turns([("To be, or", " not to be"), ("Hi", "Hello")]) == (
        "You: To be, or\nAssistant: not to be\n\nYou: Hi\nAssistant: Hello"
    )


def test_notes_about_limits_name_the_tokens_and_the_remedy():
    assert cut_off_note(1).startswith("the answer was cut off at 1 token; a larger max-tokens")
    assert dropped_note(256, 128) == (
        "the model now sees only the latest turns: 128 of its 256 tokens are reserved for the answer; /max-tokens 64 "
        "leaves more room"
    )
    assert dropped_note(64, 44).endswith("20 of its 64 tokens are reserved for the answer")
