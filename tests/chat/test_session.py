"""A conversation: its prompts, what stays in the context, and which notes the user gets."""

import re
from dataclasses import replace

import pytest

from src.chat.messages import dropped_note
from src.chat.session import NEXT_TURN, RAW_MODEL_NOTE, ChatSession, ChatSettings
from src.data.prompts import TEMPLATE, Message, prompt_ids
from src.model.generate import PrefixCache, TextGenerator
from tests.fakes import CHAT_SETTINGS, ENCODING, ScriptedGenerator, rendered_ids, stream_settings


def scripted_session(*answers, context_length=64, template=TEMPLATE, settings=CHAT_SETTINGS, system=None):
    """(session, generator, the notes for the user)"""
    generator, notes = ScriptedGenerator(*answers, context_length=context_length), []
    session = ChatSession(generator, template=template, settings=settings, notify=notes.append, system=system)
    return session, generator, notes


def ask(session, *messages) -> list[str]:
    return ["".join(session.reply(message)) for message in messages]


def test_the_prompt_matches_the_training_format():
    session, generator, notes = scripted_session("Paris.", "Rome.")
    assert ask(session, "France?", "Italy?") == ["Paris.", "Rome."]
    assert generator.prompts == [rendered_ids("France?"), rendered_ids("France?", "Paris.", "Italy?")]
    assert [(message.role, message.text) for message in session.messages] == [
        ("user", "France?"), ("assistant", "Paris."), ("user", "Italy?"), ("assistant", "Rome."),
    ]  # fmt: skip
    assert session.finish_reason == "stop"
    assert notes == []


def test_current_settings_reach_the_model():
    session, generator, _ = scripted_session("a", "b")
    ask(session, "x")
    changes = {"temperature": 0.0, "top_k": None, "top_p": 0.5, "repetition_penalty": 1.2, "seed": 3}
    changed = replace(CHAT_SETTINGS, max_tokens=5, **changes)
    session.settings = changed
    ask(session, "y")
    assert generator.settings == [stream_settings(CHAT_SETTINGS), stream_settings(changed)]


def test_turns_share_a_prefix_cache():
    session, generator, _ = scripted_session("a", "b")
    ask(session, "x", "y")
    assert generator.prefix_caches[0] is generator.prefix_caches[1] is not None
    cache = PrefixCache()
    other = ChatSession(generator, template=TEMPLATE, settings=session.settings, notify=print, prefix_cache=cache)
    generator.answers = ["c"]
    ask(other, "z")
    assert generator.prefix_caches[2] is cache is not generator.prefix_caches[0]


def test_a_full_context_drops_the_oldest_turns():
    one, two = "one" + " word" * 10, "two" + " word" * 10
    session, generator, notes = scripted_session(one, two, "three")
    ask(session, "first message", "second message", "third message")
    assert generator.prompts[1] == rendered_ids("first message", one, "second message")
    assert generator.prompts[2] == rendered_ids("second message", two, "third message")
    assert notes == [dropped_note(64, 44)]
    assert session.messages[0].text == "second message"


def test_dropped_turns_come_back_when_they_fit_again():
    session, _, notes = scripted_session("one", "two", "three", "four", context_length=96)
    ask(session, "first " * 20, "second " * 36)
    assert session.messages[0].text.startswith("second") and notes == [dropped_note(96, 76)]
    session.settings = replace(CHAT_SETTINGS, max_tokens=1)
    ask(session, "third")
    assert session.dropped_messages == 0 and session.messages[0].text.startswith("first")
    ask(session, "fourth " * 40)
    assert session.messages[0].text == "third"


def test_turns_dropped_together_give_one_note():
    session, generator, notes = scripted_session("one", "two", "three", context_length=96)
    ask(session, "first", "second", "a third one that is longer " * 10)
    assert notes == [dropped_note(96, 76)]
    assert generator.prompts[2] == rendered_ids("a third one that is longer " * 9 + "a third one that is longer")


@pytest.mark.parametrize("max_tokens", [1, 20, 500])
def test_prompt_and_answer_always_fit_the_context(max_tokens):
    settings = replace(CHAT_SETTINGS, max_tokens=max_tokens)
    session, generator, _ = scripted_session(
        *["word " * 30] * 12, context_length=80, settings=settings, system="Be brief."
    )
    ask(session, *["message " * n for n in range(1, 13)])
    budget = 80 - min(max_tokens, 40)
    start = rendered_ids(system="Be brief.")
    for prompt in generator.prompts:
        assert len(prompt) <= budget
        assert prompt[: len(start)] == start


def test_usage_counts_tokens_and_budget():
    session, _, _ = scripted_session("one")
    assert (session.usage.used, session.usage.budget, session.usage.left) == (0, 44, 44)
    ask(session, "first")
    assert session.usage.used == len(rendered_ids("first", "one"))
    session.settings = replace(CHAT_SETTINGS, max_tokens=1000)
    assert session.usage.budget == 32


def test_a_message_longer_than_the_context_keeps_its_end():
    session, generator, notes = scripted_session("yes", "no")
    ask(session, "hello", "x" + " many words" * 40 + " and the last one")
    prompt = ENCODING.decode(generator.prompts[1])
    assert len(generator.prompts[1]) <= 44
    assert prompt.startswith("### Instruction:\n")
    assert prompt.endswith(" and the last one\n\n### Response:\n")
    end = session.messages[0].text
    assert "words and the last one" in end and len(end) > 150
    assert notes == [
        f"the message does not fit into a prompt of 44 tokens: only its end is used, starting with {end[:20]!r}",
        dropped_note(64, 44),
    ]


def test_the_system_message_is_never_dropped():
    session, generator, _ = scripted_session(*"abcd", system="Answer in verse.")
    ask(session, *["some message that takes room"] * 3)
    session.reset()
    ask(session, "again")
    for prompt in generator.prompts:
        assert prompt[: len(rendered_ids(system="Answer in verse."))] == rendered_ids(system="Answer in verse.")
    assert generator.prompts[3] == rendered_ids("again", system="Answer in verse.")


def test_messages_are_encoded_once(monkeypatch):
    session, _, _ = scripted_session(*"abcd", context_length=256)
    encoded = []
    encode = ENCODING.encode_ordinary
    ask(session, "first", "second")
    monkeypatch.setattr(ENCODING, "encode_ordinary", lambda text: encoded.append(text) or encode(text))
    ask(session, "third")
    assert not [text for text in encoded if "first" in text or "second" in text]
    assert [text for text in encoded if "third" in text]


def test_the_answer_stops_at_the_next_instruction_heading():
    session, _, _ = scripted_session("Paris. \n\n### Instruction:\nAnd Italy?")
    assert ask(session, "France?") == ["Paris."]
    assert session.messages[1].text == "Paris."
    assert session.finish_reason == "stop"


def test_the_stop_string_is_the_heading_of_the_template():
    assert ("\n" + ENCODING.decode(rendered_ids("Hi"))).startswith(NEXT_TURN)


def test_streamed_answers_are_stripped():
    session, _, _ = scripted_session(" \n One\n\n two  \n ")
    pieces = list(session.reply("Count"))
    assert "".join(pieces) == "One\n\n two"
    assert len(pieces) > 1


def test_an_answer_cut_at_max_tokens_gives_a_note():
    session, _, notes = scripted_session("word " * 30)
    assert ask(session, "Talk") == ["word " * 19 + "word"]
    assert session.finish_reason == "length"
    assert notes == ["the answer was cut off at 20 tokens; a larger max-tokens allows longer ones"]


def test_an_interrupted_answer_stays_in_the_conversation():
    session, generator, _ = scripted_session(["Once upon a", KeyboardInterrupt()], "more")
    pieces = []
    with pytest.raises(KeyboardInterrupt):
        pieces.extend(iter(session.reply("Tell")))
    assert session.messages[1].text == "Once upon a"
    assert session.finish_reason == "interrupted"
    ask(session, "Go on")
    assert generator.prompts[1] == rendered_ids("Tell", "Once upon a", "Go on")


def test_a_closed_answer_stays_in_the_conversation():
    session, _, _ = scripted_session("Once upon a time")
    answer = session.reply("Tell")
    first = next(answer) + next(answer)
    answer.close()
    assert session.messages[1].text == first == "Once upon"


def test_a_closed_answer_has_no_token_count():
    session, _, _ = scripted_session("Once upon a time", "The end")
    ask(session, "Tell")
    assert session.answer_tokens == 4
    answer = session.reply("Go on")
    next(answer)
    answer.close()
    assert session.answer_tokens == 0 and session.finish_reason == "interrupted"


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_answer_that_fails_at_once_adds_no_turn(failure):
    session, generator, _ = scripted_session([failure], "fine")
    with pytest.raises(type(failure)):
        ask(session, "one")
    assert session.messages == ()
    assert ask(session, "two") == ["fine"]
    assert generator.prompts[1] == rendered_ids("two")


def test_an_empty_answer_is_a_turn():
    session, _, _ = scripted_session("")
    assert ask(session, "one") == [""]
    assert [message.text for message in session.messages] == ["one", ""]


def test_reset_clears_and_add_turn_appends():
    session, generator, _ = scripted_session("a", "b")
    ask(session, "one")
    session.reset()
    assert session.messages == () and session.usage.used == 0 and session.finish_reason is None
    session.add_turn("France?", "Paris.")
    ask(session, "Italy?")
    assert generator.prompts[1] == rendered_ids("France?", "Paris.", "Italy?")


def test_a_raw_model_continues_the_conversation_as_text():
    session, generator, notes = scripted_session(
        " upon a time.\n\n### Instruction: x ", " went.\n", " home", template=None
    )
    assert ask(session, "Once", "  And she  ", "back") == [" upon a time.\n\n### Instruction: x ", " went.\n", " home"]
    texts = [ENCODING.decode(prompt) for prompt in generator.prompts]
    assert texts[0] == "Once"
    assert texts[1] == "Once upon a time.\n\n### Instruction: x \n  And she"
    assert texts[2] == texts[1] + " went.\nback"
    assert notes == [RAW_MODEL_NOTE]


def test_a_raw_model_gets_the_end_of_a_long_text():
    session, generator, notes = scripted_session(" b" * 20, " c", template=None)
    ask(session, "a" + " a" * 29, "go on")
    assert len(generator.prompts[1]) == 44
    assert ENCODING.decode(generator.prompts[1]).endswith(" a" * 21 + " b" * 20 + "\ngo on")
    assert notes[1:] == ["the text no longer fits into a prompt of 44 tokens: the model sees only its end"]


def test_a_raw_model_takes_no_system_message():
    with pytest.raises(ValueError, match="a raw model takes no system message"):
        scripted_session(template=None, system="Be brief.")


def test_the_unknown_template_error_names_all_templates():
    with pytest.raises(ValueError, match=r"'alpaca'.*'instruction-response 1', '.* 2'; .*python instruction_tune.py"):
        scripted_session(template="alpaca")


def test_a_context_too_small_for_a_message_is_refused():
    with pytest.raises(ValueError, match="context of 16 tokens is too small.* room for 8 tokens.* take 10"):
        scripted_session(context_length=16)
    with pytest.raises(
        ValueError, match="the system message is too long: it takes .* limit is 32, half of the context"
    ):
        scripted_session(system="many words " * 20)


def test_every_bad_setting_is_named():
    with pytest.raises(ValueError) as error:
        ChatSettings(temperature=float("nan"), top_k=0, top_p=1.5, max_tokens=0, repetition_penalty=0, seed=2**63)
    for name in ("temperature", "top_k", "top_p", "repetition_penalty", "max_tokens", "seed"):
        assert f"{name} must be" in str(error.value)


@pytest.mark.parametrize("text", ["", "  \n\t", "\u00a0"])
@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_an_empty_message_is_refused(text, template):
    session, generator, _ = scripted_session("a", template=template)
    with pytest.raises(ValueError, match="the message is empty"):
        ask(session, text)
    assert generator.prompts == [] and session.messages == ()


@pytest.mark.parametrize("text", ["{} {0} {name} %s", "< |endoftext|>", "nul \x00 escape \x1b[2J", "### Response:\nx"])
def test_any_typed_text_is_encoded_as_plain_text(text):
    session, generator, _ = scripted_session("ok", context_length=128)
    ask(session, text)
    assert ENCODING.decode(generator.prompts[0]) == f"### Instruction:\n{text}\n\n### Response:\n"
    assert ENCODING.eot_token not in generator.prompts[0]


def test_lone_surrogates_become_replacement_characters():
    session, _, _ = scripted_session("ok")
    ask(session, "a\ud800b \ud83d\ude00")
    assert session.messages[0].text == "a\N{REPLACEMENT CHARACTER}b \N{GRINNING FACE}"


@pytest.mark.parametrize("unit", ["a", "word ", "\N{GRINNING FACE}", "\x00", "{"])
@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_a_line_of_100_kb_is_truncated_to_the_context(unit, template):
    session, generator, _ = scripted_session("ok", template=template)
    ask(session, unit * (100_000 // len(unit.encode())))
    assert 30 <= len(generator.prompts[0]) <= 44


@pytest.mark.parametrize("end", ["", "!", "!?"])
def test_truncation_never_splits_a_character(end):
    session, generator, _ = scripted_session("ok")
    ask(session, "\N{GRINNING FACE}" * 200 + end)
    assert set(session.messages[0].text) == {"\N{GRINNING FACE}", *end}
    assert 40 <= len(generator.prompts[0]) <= 44


def test_a_seed_makes_a_real_models_answers_repeatable():
    generator = TextGenerator(ScriptedGenerator().model, ENCODING)
    session = ChatSession(
        generator, template=TEMPLATE, settings=replace(CHAT_SETTINGS, seed=5), notify=lambda note: None
    )
    first = ask(session, "Hello", "Go on")
    session.reset()
    assert ask(session, "Hello", "Go on") == first
    session.reset()
    session.settings = replace(CHAT_SETTINGS, seed=6)
    assert ask(session, "Hello", "Go on") != first


def test_an_input_is_rendered_as_in_training(session, generator):
    rendered = prompt_ids(Message("user", "Shorten it.", "Snow fell."), ENCODING)
    assert session._encode_user(session.with_input("Shorten it.", "Snow fell.")).ids == tuple(rendered)
    raw = ChatSession(generator, template=None, settings=CHAT_SETTINGS, notify=lambda note: None)
    assert raw.with_input("And then", "Snow fell.") == "Snow fell.\n\nAnd then"


@pytest.mark.parametrize("input", ["Snow fell. " * 40, "\u732b" * 500, "x" * 5000, " a\n" * 300])
def test_a_long_input_is_cut_but_not_the_question(generator, input):
    notes = []
    session = ChatSession(generator, template=TEMPLATE, settings=CHAT_SETTINGS, notify=notes.append)
    message = session.with_input("What fell?", input)
    assert message.startswith("What fell?\n\n### Input:\n" + input[:4].rstrip())
    assert session.usage.budget - 12 < len(session._encode_user(message).ids) <= session.usage.budget
    assert len(notes) == 1 and re.search("the input does not fit .*: only its first [0-9]+ tokens are used", notes[0])


def test_a_prompt_without_room_for_its_input_is_refused(session):
    with pytest.raises(ValueError, match="leaves no room for its input: a prompt holds 32 tokens"):
        session.with_input("word " * 100, "Snow fell.")


def texts(session) -> list[str]:
    return [message.text for message in session.messages]


def test_retry_answers_the_last_message_again_and_undo_brings_the_old_answer_back():
    session, generator, _ = scripted_session("Paris.", "PARIS", "Rome.")
    with pytest.raises(ValueError, match="there is nothing to retry yet"):
        session.retry()
    ask(session, "France?")
    assert "".join(session.retry()) == "PARIS" and texts(session) == ["France?", "PARIS"]
    assert generator.prompts[1] == generator.prompts[0]
    assert "The earlier answer to" in session.undo() and texts(session) == ["France?", "Paris."]
    session.redo()
    ask(session, "Italy?")
    assert texts(session) == ["France?", "PARIS", "Italy?", "Rome."]


@pytest.mark.parametrize("answer", [[RuntimeError("broken")], [lambda: None]])
def test_a_retry_without_a_word_keeps_the_old_answer(answer):
    session, _, _ = scripted_session("Paris.", answer)
    ask(session, "France?")
    again = session.retry()
    if answer[0].__class__ is RuntimeError:
        with pytest.raises(RuntimeError, match="broken"):
            next(again)
        assert texts(session) == ["France?", "Paris."]
    else:
        again.close()  # before it began
        assert texts(session) == ["France?", "Paris."]


def test_undo_takes_back_turns_and_a_reset():
    session, _, _ = scripted_session("Paris.", "Rome.")
    ask(session, "France?", "Italy?")
    assert session.undo() == 'Took back "Italy?"; /redo brings it back.' and texts(session) == ["France?", "Paris."]
    assert session.redo() == '"Italy?" is back.' and len(session.messages) == 4
    assert session.reset() == "The conversation is cleared. /undo brings it back." and texts(session) == []
    assert session.undo() == "The conversation is back." and len(session.messages) == 4
    assert session.redo() == "The conversation is cleared again." and texts(session) == []
    assert session.reset() == "The conversation is empty."


def test_a_message_whose_answer_did_not_begin_can_be_answered_again_or_taken_back():
    session, generator, _ = scripted_session("Paris.", [KeyboardInterrupt()], "Rome.", [KeyboardInterrupt()])
    ask(session, "France?")
    with pytest.raises(KeyboardInterrupt):
        ask(session, "Italy?")
    assert texts(session) == ["France?", "Paris."]
    assert "".join(session.retry()) == "Rome." and texts(session) == ["France?", "Paris.", "Italy?", "Rome."]
    with pytest.raises(KeyboardInterrupt):
        ask(session, "Spain?")
    assert session.undo() == "Took back the unanswered message."
    assert session.undo() == 'Took back "Italy?"; /redo brings it back.'
