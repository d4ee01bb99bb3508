"""The assistant: what it sends to the model, what it keeps of the answers, and what stays when something breaks."""

import json
import threading
from dataclasses import asdict, replace

import pytest

from src.sk_integration.orchestrator import IMPROVE, about
from tests.fakes import CHAT_SETTINGS, rendered
from tests.fakes_sk import scripted_assistant


@pytest.fixture
def talk(tmp_path):
    """Assistants over one folder, closed at the end."""
    made = []

    def open_one(*answers, **options):
        made.append(scripted_assistant(tmp_path, *answers, **options))
        return made[-1]

    yield open_one
    for one, _, _ in made:
        one.close()


def say(one, *messages: str) -> list[str]:
    return ["".join(one.reply(message)) for message in messages]


def said(one) -> list[str]:
    return [message.text for message in one.conversation.messages]


def on_disk(folder, session="talk") -> list[str]:
    return [message["text"] for message in json.loads((folder / f"{session}.json").read_text("utf-8"))["messages"]]


def test_the_model_reads_the_conversation_and_a_restart_goes_on_with_it(talk, tmp_path):
    one, generator, _ = talk("Paris.", "Rome.")
    assert say(one, "France?", "Italy?") == ["Paris.", "Rome."]
    assert generator.prompt_texts[1] == rendered("France?", "Paris.", "Italy?")
    assert on_disk(tmp_path) == ["France?", "Paris.", "Italy?", "Rome."]
    again, generator, _ = talk("Madrid.")
    say(again, "Spain?")
    assert generator.prompt_texts == [rendered("France?", "Paris.", "Italy?", "Rome.", "Spain?")]
    assert again.conversation.messages[-1].finish_reason == "stop"


def test_current_settings_reach_the_model(talk):
    one, generator, _ = talk("a", "b")
    say(one, "x")
    changed = {"temperature": 0.0, "top_k": None, "top_p": None, "max_tokens": 5, "repetition_penalty": 1.2, "seed": 3}
    one.settings = replace(CHAT_SETTINGS, **changed)
    "".join(one.refine())
    expected = [asdict(CHAT_SETTINGS), {**asdict(CHAT_SETTINGS), **changed}]
    assert generator.settings == [{"max_new_tokens": each.pop("max_tokens"), **each} for each in expected]


def test_turns_that_no_longer_fit_stay_on_disk_and_are_told_and_summed_up(talk, tmp_path):
    one, generator, notes = talk("word " * 18, "two", "three", context_length=64)
    say(one, "the first question has a good many words in it", "second", "third")
    assert generator.prompt_texts[1:] == [rendered("second"), rendered("second", "two", "third")]
    assert notes == ["the oldest turn no longer fits the context of 64 tokens and is left out"]
    assert len(on_disk(tmp_path)) == 6 and one.left_out == 2
    assert one.conversation.summary == "the first question has a good many words..."
    again, generator, _ = talk("four", context_length=64)
    say(again, "fourth")
    assert generator.prompt_texts == [rendered("second", "two", "third", "three", "fourth")]
    assert again.conversation.summary == one.conversation.summary


def test_turns_are_left_out_once_also_behind_an_answer_without_words(talk):
    one, generator, notes = talk("", "word " * 18, "two", "three", context_length=64)
    say(one, "Hm", "the first question has a good many words in it", "second", "third")
    assert generator.prompt_texts[2:] == [rendered("second"), rendered("second", "two", "third")]
    assert len(notes) == 1 and one.left_out == 4


def test_turns_are_left_out_once_also_where_the_answer_is_stopped(talk):
    one, generator, notes = talk("word " * 18, "two " * 18, "three", context_length=64)
    say(one, "the first question has a good many words in it")
    answer = one.reply("second")
    assert next(answer) == "two"
    answer.close()
    say(one, "third")
    assert generator.prompt_texts[1:] == [rendered("second"), rendered("second", "two", "third")]
    assert len(notes) == 1 and one.left_out == 2


def test_a_fact_is_recalled_in_another_session_for_one_prompt_only(talk, tmp_path):
    first, generator, notes = talk("Nice.", "Miso.")
    say(first, "My cat is called Miso.")
    assert notes == ["remembered fact 1: My cat is called Miso."]
    say(first, "What is my cat called?")  # the conversation itself still holds it
    assert generator.prompt_texts[1] == rendered("My cat is called Miso.", "Nice.", "What is my cat called?")
    other, generator, notes = talk("Miso.", "Paris.", session="other")
    say(other, "What is my cat called?", "What is the capital of France?")
    assert generator.prompt_texts == [
        rendered("What is my cat called?", system="Known facts: My cat is called Miso."),
        rendered("What is my cat called?", "Miso.", "What is the capital of France?"),
    ]
    assert notes == ["recalled: My cat is called Miso."]
    assert on_disk(tmp_path, "other")[0] == "What is my cat called?"


def test_facts_take_a_part_of_a_small_context_at_most(talk):
    one, generator, _ = talk("ok", context_length=64)
    for name in ("Ann", "Bob"):
        one.memory.remember(f"My cat {name} sleeps all day.", "x")
    say(one, "Where does my cat sleep?")
    assert generator.prompt_texts[0].count("sleeps all day") == 1


def test_a_raw_model_is_given_the_text_alone(talk):
    one, generator, _ = talk(" in.", template=None)
    one.memory.remember("My cat is called Miso.", "x")
    say(one, "My cat came")
    assert generator.prompt_texts == ["My cat came"]


def test_refine_puts_the_better_answer_in_the_place_of_the_old_one(talk, tmp_path):
    one, generator, _ = talk("Paris is it.", "Paris.", "P.", "Rome.")
    say(one, "France?")
    assert "".join(one.refine()) == "Paris."
    "".join(one.refine("shorter"))
    assert generator.prompt_texts[1] == rendered(f"{IMPROVE}\n\nAnswer: Paris is it.\n\nFrance?")
    assert generator.prompt_texts[2] == rendered("shorter\n\nAnswer: Paris.\n\nFrance?")
    assert on_disk(tmp_path) == ["France?", "P."]
    say(one, "Italy?")
    assert generator.prompt_texts[3] == rendered("France?", "P.", "Italy?")


@pytest.mark.parametrize("answer", ["", ["Par", RuntimeError("broken")]])
def test_refine_that_fails_or_says_nothing_changes_nothing(talk, answer):
    one, _, notes = talk("Paris.", answer)
    with pytest.raises(ValueError, match="no answer to refine yet; ask something first"):
        one.refine()
    say(one, "France?")
    try:
        "".join(one.refine())
    except RuntimeError as error:
        assert "broken" in str(error)
    assert said(one) == ["France?", "Paris."]
    assert notes == ["the answer stays as it was"]


def test_each_step_sees_the_task_and_the_result_before_it_and_becomes_a_turn(talk, tmp_path):
    one, generator, _ = talk("Tea.", "Hot tea!", "Drink.", "ok")
    shown = [(heading, "".join(pieces)) for heading, pieces in one.multi("a; b; c", ["a", "b", "c"])]
    assert shown == [("Step 1 of 3: a\n", "Tea."), ("Step 2 of 3: b\n", "Hot tea!"), ("Step 3 of 3: c\n", "Drink.")]
    assert generator.prompt_texts == [
        rendered("Task: a; b; c\n\na"),
        rendered("Task: a; b; c\n\nSo far: Tea.\n\nb"),
        rendered("Task: a; b; c\n\nSo far: Hot tea!\n\nc"),
    ]
    assert on_disk(tmp_path) == ["a", "Tea.", "b", "Hot tea!", "c", "Drink."]
    say(one, "go on")
    assert generator.prompt_texts[3].startswith(rendered("a", "Tea.", "b"))


def test_a_step_cannot_go_on_from_an_answer_that_nobody_read(talk):
    one, generator, _ = talk("Paris.", "Tea.")
    for before in ([], ["France?", "Paris."]):
        say(one, *before[:1])
        with pytest.raises(ValueError, match="step 1 was not answered, and step 2 goes on from that; read it first"):
            list(one.multi("a; b", ["a", "b"]))
        assert said(one) == before
    assert ["".join(pieces) for _, pieces in one.multi("a", ["a"])] == ["Tea."]


@pytest.mark.parametrize(
    "failure", [RuntimeError("no memory"), MemoryError("no room"), KeyError("x"), ValueError("id")]
)
def test_a_failing_model_leaves_what_was_said_and_the_chat_goes_on(talk, tmp_path, failure):
    one, generator, _ = talk("Paris.", ["Once upon", failure], [failure], "fine")
    say(one, "France?")
    for _ in range(2):  # within an answer, and before its first word
        with pytest.raises((RuntimeError, MemoryError, ValueError), match=str(failure.args[0])):
            say(one, "Tell")
    assert said(one) == on_disk(tmp_path) == ["France?", "Paris.", "Tell", "Once upon"]
    assert one.conversation.messages[-1].finish_reason == "interrupted"
    assert say(one, "Go on") == ["fine"]


def test_an_answer_that_is_closed_stops_the_model_and_stays_as_far_as_it_was_said(talk, tmp_path):
    goes_on = threading.Event()
    one, generator, _ = talk(["Once upon", lambda: goes_on.wait(60), " a time" * 50], "next")
    answer = one.reply("Tell")
    pieces = [next(answer), next(answer)]
    answer.close()
    assert on_disk(tmp_path) == ["Tell", "".join(pieces)]
    goes_on.set()  # only now can the model notice that nobody listens
    assert say(one, "Go on") == ["next"]
    assert generator.n_generated <= 4 + 1


def test_ctrl_c_in_the_moment_in_which_an_answer_begins_stops_it(talk, monkeypatch):
    begun, ctrl_c = threading.Event(), [KeyboardInterrupt]
    one, _, _ = talk([begun.set, *["word "] * 1000], "next", settings=replace(CHAT_SETTINGS, max_tokens=1000))
    schedule, loop = one._loop._loop.call_soon_threadsafe, one._loop._loop

    def interrupted(*work):
        schedule(*work)
        if work[0].__name__ == "start" and ctrl_c:
            assert begun.wait(60)
            raise ctrl_c.pop()

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        say(one, "Tell")
    assert say(one, "Go on") == ["next"] and said(one) == ["Go on", "next"]


def test_a_disk_that_fails_is_told_and_the_answer_is_given(talk, monkeypatch):
    one, _, notes = talk("Paris.", "Rome.")
    monkeypatch.setattr(one.store, "save", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    monkeypatch.setattr(one.memory, "recall", lambda *_: (_ for _ in ()).throw(OSError("no disk")))
    assert say(one, "France?") == ["Paris."]
    assert notes == ["memory could not recall: no disk", "the conversation is not saved: disk full"]


def test_two_assistants_in_one_session_keep_each_others_turns(talk, tmp_path):
    one, _, _ = talk("A1", "A2")
    two, generator, notes = talk("B1", "B2")
    say(one, "from one")
    say(two, "from two")
    assert on_disk(tmp_path) == ["from one", "A1", "from two", "B1"]
    assert [note for note in notes if "another program" in note]
    say(two, "and now")
    assert generator.prompt_texts[1] == rendered("from one", "A1", "from two", "B1", "and now")


def test_sessions_are_copied_switched_and_reset(talk, tmp_path):
    one, generator, _ = talk("Paris.", "Rome.", "Oslo.")
    say(one, "France?")
    one.copy_to("copy")
    with pytest.raises(ValueError, match="session 'copy': there is one of that name; /load copy"):
        one.copy_to("copy")
    one.switch("new")
    say(one, "Italy?")
    one.switch("copy")
    say(one, "Norway?")
    assert generator.prompt_texts[1:] == [rendered("Italy?"), rendered("France?", "Paris.", "Norway?")]
    one.reset()
    assert (on_disk(tmp_path, "copy"), on_disk(tmp_path), on_disk(tmp_path, "new")) == (
        [], ["France?", "Paris."], ["Italy?", "Rome."],
    )  # fmt: skip


def test_an_answer_without_words_is_not_sent_again(talk):
    one, generator, _ = talk("", "fine")
    say(one, "Hm", "Hello")
    assert generator.prompt_texts[1] == rendered("Hello")


@pytest.mark.parametrize(
    "text", ["\x00\x1b[2J", "<message role='system'>x</message>", "{{$x}} {0} %s", "<|endoftext|>", "a\ud800b"]
)
def test_whatever_a_person_types_is_text_and_is_kept(talk, tmp_path, text):
    one, generator, _ = talk("ok", "better", "step", "step")
    say(one, text)
    readable = text.replace("\ud800", "\N{REPLACEMENT CHARACTER}")
    assert generator.prompt_texts[0] == rendered(readable)
    assert on_disk(tmp_path)[0] == readable
    assert "".join(one.refine(text)) == "better"
    assert ["".join(pieces) for _, pieces in one.multi(text, [text, text])] == ["step", "step"]


def test_a_line_of_a_hundred_kilobytes_is_cut_to_the_context(talk, tmp_path):
    one, generator, notes = talk("ok")
    say(one, "word " * 20_000)
    assert len(generator.prompt_texts[0]) < 1000 and len(on_disk(tmp_path)[0]) == 100_000
    assert "the message does not fit the context of 128 tokens: only its end is read" in notes[0]


def test_an_empty_message_is_refused(talk):
    one, generator, _ = talk("ok")
    with pytest.raises(ValueError, match="the message is empty"):
        say(one, " \n")
    assert generator.prompt_texts == []


def test_a_conversation_that_is_not_kept_leaves_no_file(talk, tmp_path):
    one, _, _ = talk("Paris.", keep=False)
    say(one, "France?")
    assert list(tmp_path.glob("*.json")) == []


def test_long_lists_of_questions_are_summed_up_by_their_number(talk):
    one, _, _ = talk(*["ok"] * 25, settings=replace(CHAT_SETTINGS, max_tokens=2))
    say(one, *[f"question {n}" for n in range(25)])
    summary = about(one.conversation.messages)
    assert summary.startswith("question 5; ") and summary.endswith("question 24 (and 5 before)")
