from pathlib import Path

import pytest

from src.chat.commands import Chat, common_commands
from src.chat.flags import ChatFlags
from src.chat.screen import Screen
from src.chat.session import ChatSession, ChatSettings
from src.chat.start import LoadedChatModel
from src.checkpoint import LoadedModel
from src.checkpoint.training_examples import record_examples
from src.data.prompts import TEMPLATE
from src.model.generate import TextGenerator
from tests.fakes import ANSWER, ENCODING, answering_model

PAIRS = [("What is the capital of France?", ANSWER), ("Who wrote Hamlet?", "William Shakespeare wrote it.")]


@pytest.fixture(scope="package")
def generator():
    return TextGenerator(answering_model(ANSWER), ENCODING)


@pytest.fixture
def session(generator):
    """A session whose model answers ANSWER to every message."""
    return ChatSession(generator, template=TEMPLATE, settings=ChatSettings(), notify=lambda note: None)


@pytest.fixture
def chat(session, tmp_path):
    """The session in a chat whose lines are piped, and whose model knows two questions."""
    metadata = {"template": TEMPLATE, **record_examples(PAIRS, "my.json")}
    model = LoadedModel(session.generator.model, metadata, ENCODING, Path("models/best_model.pt"), "best available")
    loaded = LoadedChatModel(session.generator, model, "CPU")
    chat = Chat(session, loaded, ChatFlags(), Screen(interactive=False), tmp_path / "typed_lines")
    chat.commands += common_commands(chat)
    return chat
