import pytest

from src.chat.session import ChatSession, ChatSettings
from src.data.prompts import TEMPLATE
from src.model.generate import TextGenerator
from tests.fakes import ANSWER, ENCODING, answering_model


@pytest.fixture(scope="package")
def generator():
    return TextGenerator(answering_model(ANSWER), ENCODING)


@pytest.fixture
def session(generator):
    """A session whose model answers ANSWER to every message."""
    return ChatSession(generator, template=TEMPLATE, settings=ChatSettings(), notify=lambda note: None)
