"""Replies of the commands in unusual states. tests/test_sk_chat.py runs every command."""

import pytest

from src.sk_integration.commands import assistant_commands
from tests.fakes_sk import scripted_assistant


@pytest.fixture
def chat(tmp_path):
    """(assistant, a function that runs a line as a command)"""
    assistant, _, _ = scripted_assistant(tmp_path, "word " * 18, context_length=64)
    commands = assistant_commands(assistant, "")

    def run(line: str) -> str:
        name, _, argument = line.partition(" ")
        return commands[name].run(argument)

    yield assistant, run
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
            "44 of 44 prompt tokens used; your next message will drop the oldest turns.",
        ),
        (
            "Tell me of your day, from the morning on and at some length. Leave nothing out.",
            "48 of 44 prompt tokens used; your next message will drop the oldest turns.",
        ),
    ],
)
def test_memory_shows_the_token_budget(chat, question, tokens):
    assistant, run = chat
    "".join(assistant.reply(question))
    assert f"\nContext: {tokens}" in run("/memory")
