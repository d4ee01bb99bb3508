"""The commands that every chat has."""

import dataclasses
import re

import pytest

from src.chat.commands import common_commands, run_command
from src.chat.flags import ChatFlags, ChatSettings


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
    commands = common_commands(session)
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
        (
            f"/seed {'9' * 400}",
            f"seed must be a whole number from 0 to 2**63 - 1, or None for a new one each time, got {'9' * 100}",
        ),
        ("/seed -1", "seed must be a whole number from 0 to 2**63 - 1, or None for a new one each time, got -1"),
    ],
)
def test_a_bad_value_is_a_one_line_reply_and_changes_nothing(session, line, reason):
    before = session.settings
    assert run_command(line, common_commands(session)) == reason
    assert session.settings == before


def test_help_lists_every_command_with_its_current_value(session):
    commands = common_commands(session)
    run_command("/temp 0.25", commands)
    listed = run_command("/help", commands)
    for name in "/quit /exit /reset /temp /topk /topp /tokens /penalty /seed /help".split():
        assert re.search(rf"^{name} ", listed, re.MULTILINE)
    assert re.search(r"^/temp .*\(now 0.25\)$", listed, re.MULTILINE)
    assert re.search(r"^/topk .*\(now 40\)$", listed, re.MULTILINE)
    assert re.search(r"^/seed .*\(now off\)$", listed, re.MULTILINE)


def test_every_setting_has_a_flag_and_a_command(session):
    flags = {field.name: field for field in dataclasses.fields(ChatFlags)}
    commands = common_commands(session)
    for setting in dataclasses.fields(ChatSettings):
        assert (flags[setting.name].default, flags[setting.name].metadata) == (setting.default, setting.metadata)
        assert setting.metadata["help"] in commands["/" + (setting.metadata["aliases"] or (setting.name,))[0]].help
    changed = ChatSettings(temperature=0.1, top_k=2, top_p=0.3, repetition_penalty=1.4, max_tokens=5, seed=6)
    assert ChatFlags(**dataclasses.asdict(changed)).settings() == changed


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("/tmep 1", "did you mean /temp?"),
        ("/temperature 1", "did you mean /temp?"),
        ("/q", "did you mean /quit?"),
        ("/h", "did you mean /help?"),
        ("/bye", "/quit leaves the chat"),
        ("/?", "/help lists the commands"),
        ("/clear", "/new starts another conversation"),
        ("/usr/bin", "/help lists the commands"),
    ],
)
def test_an_unknown_command_gets_a_hint(session, typed, hint):
    reply = run_command(typed, common_commands(session))
    assert reply == f"{typed.split()[0]}: unknown command; {hint} (type // to start a message with a slash)"


@pytest.mark.parametrize("typed", ["/retry", "/rese", "/rest", "/reste", "/resets", "/set"])
def test_no_hint_suggests_what_deletes(session, typed):
    assert "did you mean /reset?" not in run_command(typed, common_commands(session))
