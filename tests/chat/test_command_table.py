"""How a typed line finds its command, and the list of commands."""

import pytest

from src.chat.command_table import Command, CommandFailed, find_command, help_text, run_command

COMMANDS = [
    Command("/help", "show this list", lambda _: "help", aliases=("/?",)),
    Command("/history", "show the conversation", lambda _: "history"),
    Command("/top-k", "sample from this many of the most likely tokens", str, "[N]", ("/topk",), lambda: "40"),
    Command("/top-p", "sample from the most likely tokens", str, "[X]", ("/topp",)),
    Command("/save", "copy it", str, "NAME"),
    Command("/model", "switch", str, "[X]"),
    Command("/reset", "clear it", lambda _: "cleared", deletes=True),
]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("/help", "/help"),
        ("/HELP", "/help"),
        ("/?", "/help"),
        ("/he", "/help"),
        ("/hist", "/history"),
        ("/top_k", "/top-k"),
        ("/TopK", "/top-k"),
        ("/sa", "/save"),
        ("/reset", "/reset"),
    ],
)
def test_a_command_is_found_by_its_names_and_by_a_clear_start(typed, name):
    assert find_command(typed, COMMANDS).name == name


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("/h", "/h could be /help or /history"),
        ("/top", "/top could be /top-k or /top-p"),
        ("/hlep", "Unknown command /hlep. Did you mean /help? To send the line as a message, begin it with //"),
        ("/foo", "Unknown command /foo. /help lists commands; to send the line as a message, begin it with //"),
        ("/del", "Unknown command /del. /help lists commands; to send the line as a message, begin it with //"),
        ("/", "Unknown command /. /help lists commands; to send the line as a message, begin it with //"),
        ("/p", "Unknown command /p. /help lists commands; to send the line as a message, begin it with //"),
        ("/t", "/t could be /top-k or /top-p"),
        ("/mdel", "Unknown command /mdel. Did you mean /model? To send the line as a message, begin it with //"),
        ("/usr/bin", "Unknown command /usr/bin. /help lists commands; to send the line as a message, begin it with //"),
    ],
)
def test_an_unclear_or_unknown_command_is_refused(typed, reason):
    with pytest.raises(CommandFailed) as failed:
        run_command(typed, COMMANDS)
    assert str(failed.value) == reason


def test_an_alias_is_not_shortened():
    aliased = [
        Command("/max-tokens", "", str, "[N]", ("/tokens",)),
        Command("/repetition-penalty", "", str, "[X]", ("/penalty",)),
    ]
    assert find_command("/penalty", aliased).name == "/repetition-penalty"
    with pytest.raises(ValueError, match="Unknown command /p"):
        find_command("/p", aliased)
    with pytest.raises(ValueError, match="/t could be /top-k or /top-p$"):
        find_command("/t", [*COMMANDS, *aliased])


@pytest.mark.parametrize("typed", ["/r", "/rese", "/rest", "/resets", "/rset"])
def test_commands_that_delete_are_typed_in_full_and_never_suggested(typed):
    with pytest.raises(CommandFailed) as failed:
        run_command(typed, COMMANDS)
    if "/reset".startswith(typed):
        assert str(failed.value) == f"{typed} is too short for a command that deletes; type /reset in full"
    else:
        assert str(failed.value).startswith("Unknown command") and "/reset?" not in str(failed.value)


@pytest.mark.parametrize("columns", [30, 50, 80, 120])
def test_the_list_fits_the_window(columns):
    text = help_text(COMMANDS, ["A note that is longer than the narrowest of these windows."], columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "/top-k [N]" in text and "(now 40)" in " ".join(text.split())
    if columns >= 50:
        assert "/save NAME  copy it" in text


def test_text_after_a_command_without_an_argument_is_refused():
    with pytest.raises(CommandFailed, match="/history takes no argument, got 'now'"):
        run_command("/history now", COMMANDS)


def test_a_failing_command_is_one_line():
    def fail(_):
        raise OSError(28, "No space left on device", "x.json")

    with pytest.raises(CommandFailed) as failed:
        run_command("/fail", [Command("/fail", "", fail)])
    assert str(failed.value) == "No space left on device: 'x.json'"
