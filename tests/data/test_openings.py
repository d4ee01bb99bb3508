"""The made-up openings: reproducible, varied, and recorded in the checkpoint."""

from src.data.examples import tuning_texts
from src.data.instructions import Conversation
from src.data.openings import N_OPENINGS, choose_openings, kinds_of_system_message, make_openings
from src.data.prompts import FACTS_HEADING, Message, opening_text, prompt_ids
from src.memory.words import words_of
from src.tokenizer import load_gpt2_encoding

QUESTIONS = ["What is the capital of France?", "Who wrote Hamlet?"]


def conversation(*messages: Message) -> Conversation:
    return Conversation("a.json record 1", (*messages, Message("user", "Who?"), Message("assistant", "Me.")))


def test_openings_depend_on_the_questions_and_the_seed_only() -> None:
    openings = make_openings(QUESTIONS, 7)
    assert openings == make_openings(QUESTIONS, 7) != make_openings(QUESTIONS, 8)
    assert len(openings) == N_OPENINGS and len({*openings}) > N_OPENINGS * 0.8
    assert not any("{" in text or "}" in text for text in openings)
    assert sum(text.startswith(FACTS_HEADING) for text in openings) == N_OPENINGS / 2
    assert any("capital of France" in text for text in openings)


def test_a_word_vocabulary_can_hold_every_opening() -> None:
    known = {*words_of(" ".join([*tuning_texts(), *QUESTIONS]))}
    unknown = {word for text in make_openings(QUESTIONS, 1) for word in words_of(text) if not word.isdigit()} - known
    assert unknown <= {"s"} | {word + "s" for word in known}  # plurals


def test_only_few_conversations_without_system_messages_get_openings_by_default() -> None:
    plain, own = conversation(), conversation(Message("system", "Be brief."))
    openings = choose_openings([plain] * 200, 0, None)
    assert openings.share == 0.5 and len(openings.ids(load_gpt2_encoding())) == N_OPENINGS
    assert openings.ids(load_gpt2_encoding())[0] == prompt_ids(
        Message("system", openings.texts[0]), load_gpt2_encoding()
    )
    assert "50% of the chats begin with one of 600 made-up ones: " in openings.describe()
    for chats, share in (([plain] * 201, None), ([plain, own], None), ([plain], 0.0)):
        assert choose_openings(chats, 0, share).texts == ()
    assert choose_openings([own] * 300, 0, 0.3).share == 0.3


def test_the_checkpoint_records_what_kinds_of_system_message_were_seen() -> None:
    nothing = choose_openings([conversation()], 0, 0.0)
    facts = conversation(Message("system", opening_text("", ["My cat is called Miso."])))
    both = conversation(Message("system", opening_text("Be brief.", ["My cat is called Miso."])))
    assert kinds_of_system_message([conversation()], nothing) == {"facts": False, "system": False}
    assert kinds_of_system_message([facts], nothing) == {"facts": True, "system": False}
    assert kinds_of_system_message([conversation(Message("system", "Be brief."))], nothing) == {
        "facts": False,
        "system": True,
    }
    assert kinds_of_system_message([both], nothing) == {"facts": True, "system": True}
    assert kinds_of_system_message([conversation()], choose_openings([conversation()], 0, None)) == {
        "facts": True,
        "system": True,
    }
