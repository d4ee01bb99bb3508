"""What the commands say where a newcomer could be puzzled; tests/test_sk_chat.py types every one of them."""

import pytest

from src.sk_integration.commands import assistant_commands
from tests.fakes_sk import scripted_assistant


@pytest.fixture
def talk(tmp_path):
    """(assistant, a function that runs a line as a command)"""
    one, _, _ = scripted_assistant(tmp_path, "word " * 18, context_length=64)
    commands = assistant_commands(one, "")

    def run(line: str) -> str:
        name, _, argument = line.partition(" ")
        return commands[name][1](argument)

    yield one, run
    one.close()


@pytest.mark.parametrize("line", ["/forget 1", "/forget all", "/forget all yes"])
def test_an_empty_memory_has_nothing_to_forget(talk, line):
    one, run = talk
    assert run(line) == "long-term memory is empty: there is nothing to forget; /reset forgets this conversation"
    one.memory.remember("I ski.", "talk")
    assert "nothing to forget" not in run(line)


@pytest.mark.parametrize(
    ("question", "tokens"),
    [
        ("Tell me of your day", "34 of the 44 that a prompt may have; 10 left for your next message"),
        ("Tell me of your day, from the morning on and at some length.", "44; a prompt may have 44, so"),
        (
            "Tell me of your day, from the morning on and at some length. Leave nothing out.",
            "48; a prompt may have 44, so your next message pushes the oldest turns out",
        ),
    ],
)
def test_memory_says_what_becomes_of_a_conversation_that_is_too_long(talk, question, tokens):
    one, run = talk
    "".join(one.reply(question))
    assert f"\ntokens: {tokens}" in run("/memory")
