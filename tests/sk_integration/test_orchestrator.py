"""The assistant: its prompts, what it saves, and what survives when something fails."""

import json
import threading
from dataclasses import asdict, replace

import pytest

from src.sk_integration.orchestrator import REFINE_INSTRUCTION, summarise
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


def test_a_restart_resumes_the_conversation(talk, tmp_path):
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


def test_dropped_turns_stay_on_disk_and_are_summarised(talk, tmp_path):
    one, generator, notes = talk("word " * 18, "two", "three", context_length=64)
    say(one, "the first question has a good many words in it", "second", "third")
    assert generator.prompt_texts[1:] == [rendered("second"), rendered("second", "two", "third")]
    assert notes == ["the oldest turn no longer fits the context of 64 tokens and was dropped"]
    assert len(on_disk(tmp_path)) == 6 and one.dropped_messages == 2
    assert one.conversation.summary == "the first question has a good many words..."
    again, generator, _ = talk("four", context_length=64)
    say(again, "fourth")
    assert generator.prompt_texts == [rendered("second", "two", "third", "three", "fourth")]
    assert again.conversation.summary == one.conversation.summary


def test_turns_are_dropped_once_even_after_an_empty_answer(talk):
    one, generator, notes = talk("", "word " * 18, "two", "three", context_length=64)
    say(one, "Hm", "the first question has a good many words in it", "second", "third")
    assert generator.prompt_texts[2:] == [rendered("second"), rendered("second", "two", "third")]
    assert len(notes) == 1 and one.dropped_messages == 4


def test_turns_are_dropped_once_even_if_the_answer_is_closed(talk):
    one, generator, notes = talk("word " * 18, "two " * 18, "three", context_length=64)
    say(one, "the first question has a good many words in it")
    answer = one.reply("second")
    assert next(answer) == "two"
    answer.close()
    say(one, "third")
    assert generator.prompt_texts[1:] == [rendered("second"), rendered("second", "two", "third")]
    assert len(notes) == 1 and one.dropped_messages == 2


def test_a_fact_is_recalled_in_another_session_for_one_prompt(talk, tmp_path):
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


def test_facts_take_a_limited_share_of_a_small_context(talk):
    one, generator, _ = talk("ok", context_length=64)
    for name in ("Ann", "Bob"):
        one.memory.remember(f"My cat {name} sleeps all day.", "x")
    say(one, "Where does my cat sleep?")
    assert generator.prompt_texts[0].count("sleeps all day") == 1


def test_a_raw_model_gets_no_facts(talk):
    one, generator, _ = talk(" in.", template=None)
    one.memory.remember("My cat is called Miso.", "x")
    say(one, "My cat came")
    assert generator.prompt_texts == ["My cat came"]


def test_refine_replaces_the_last_answer(talk, tmp_path):
    one, generator, _ = talk("Paris is it.", "Paris.", "P.", "Rome.")
    say(one, "France?")
    assert "".join(one.refine()) == "Paris."
    "".join(one.refine("shorter"))
    assert generator.prompt_texts[1] == rendered(f"{REFINE_INSTRUCTION}\n\nAnswer: Paris is it.\n\nFrance?")
    assert generator.prompt_texts[2] == rendered("shorter\n\nAnswer: Paris.\n\nFrance?")
    assert on_disk(tmp_path) == ["France?", "P."]
    say(one, "Italy?")
    assert generator.prompt_texts[3] == rendered("France?", "P.", "Italy?")


@pytest.mark.parametrize("answer", ["", ["Par", RuntimeError("broken")]])
def test_a_failed_or_empty_refinement_changes_nothing(talk, answer):
    one, _, notes = talk("Paris.", answer)
    with pytest.raises(ValueError, match="no answer to refine yet; ask something first"):
        one.refine()
    say(one, "France?")
    try:
        "".join(one.refine())
    except RuntimeError as error:
        assert "broken" in str(error)
    assert said(one) == ["France?", "Paris."]
    assert notes == ["the answer is unchanged"]


def test_each_step_gets_task_and_previous_answer_and_is_a_turn(talk, tmp_path):
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


def test_a_step_needs_the_previous_answer(talk):
    one, generator, _ = talk("Paris.", "Tea.")
    for before in ([], ["France?", "Paris."]):
        say(one, *before[:1])
        with pytest.raises(ValueError, match="step 2 needs the answer to step 1, which was not generated"):
            list(one.multi("a; b", ["a", "b"]))
        assert said(one) == before
    assert ["".join(pieces) for _, pieces in one.multi("a", ["a"])] == ["Tea."]


@pytest.mark.parametrize(
    "failure", [RuntimeError("no memory"), MemoryError("no room"), KeyError("x"), ValueError("id")]
)
def test_a_failing_model_keeps_the_partial_answer(talk, tmp_path, failure):
    one, generator, _ = talk("Paris.", ["Once upon", failure], [failure], "fine")
    say(one, "France?")
    for _ in range(2):  # within an answer, and before its first word
        with pytest.raises((RuntimeError, MemoryError, ValueError), match=str(failure.args[0])):
            say(one, "Tell")
    assert said(one) == on_disk(tmp_path) == ["France?", "Paris.", "Tell", "Once upon"]
    assert one.conversation.messages[-1].finish_reason == "interrupted"
    assert say(one, "Go on") == ["fine"]


def test_closing_an_answer_stops_the_model_and_keeps_the_text(talk, tmp_path):
    resume = threading.Event()
    one, generator, _ = talk(["Once upon", lambda: resume.wait(60), " a time" * 50], "next")
    answer = one.reply("Tell")
    pieces = [next(answer), next(answer)]
    answer.close()
    assert on_disk(tmp_path) == ["Tell", "".join(pieces)]
    resume.set()  # only now can the model notice that the answer was closed
    assert say(one, "Go on") == ["next"]
    assert generator.n_generated <= 4 + 1


def test_ctrl_c_at_the_start_of_an_answer_stops_it(talk, monkeypatch):
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


def test_a_disk_error_gives_a_note_and_the_answer(talk, monkeypatch):
    one, _, notes = talk("Paris.", "Rome.")
    monkeypatch.setattr(one.store, "save", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    monkeypatch.setattr(one.memory, "recall", lambda *_: (_ for _ in ()).throw(OSError("no disk")))
    assert say(one, "France?") == ["Paris."]
    assert notes == ["memory could not recall: no disk", "could not save the conversation: disk full"]


def test_two_assistants_in_one_session_merge_their_turns(talk, tmp_path):
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
    one.save_copy("copy")
    with pytest.raises(ValueError, match="session 'copy' already exists; /load copy"):
        one.save_copy("copy")
    one.switch_to("new")
    say(one, "Italy?")
    one.switch_to("copy")
    say(one, "Norway?")
    assert generator.prompt_texts[1:] == [rendered("Italy?"), rendered("France?", "Paris.", "Norway?")]
    one.reset()
    assert (on_disk(tmp_path, "copy"), on_disk(tmp_path), on_disk(tmp_path, "new")) == (
        [], ["France?", "Paris."], ["Italy?", "Rome."],
    )  # fmt: skip


def test_an_empty_answer_is_dropped_messages_of_the_next_prompt(talk):
    one, generator, _ = talk("", "fine")
    say(one, "Hm", "Hello")
    assert generator.prompt_texts[1] == rendered("Hello")


@pytest.mark.parametrize(
    "text", ["\x00\x1b[2J", "<message role='system'>x</message>", "{{$x}} {0} %s", "<|endoftext|>", "a\ud800b"]
)
def test_any_typed_text_is_plain_text_and_saved(talk, tmp_path, text):
    one, generator, _ = talk("ok", "better", "step", "step")
    say(one, text)
    readable = text.replace("\ud800", "\N{REPLACEMENT CHARACTER}")
    assert generator.prompt_texts[0] == rendered(readable)
    assert on_disk(tmp_path)[0] == readable
    assert "".join(one.refine(text)) == "better"
    assert ["".join(pieces) for _, pieces in one.multi(text, [text, text])] == ["step", "step"]


def test_a_line_of_100_kb_is_truncated_to_the_context(talk, tmp_path):
    one, generator, notes = talk("ok")
    say(one, "word " * 20_000)
    assert len(generator.prompt_texts[0]) < 1000 and len(on_disk(tmp_path)[0]) == 100_000
    assert "the message does not fit the context of 128 tokens: only its end is used" in notes[0]


def test_an_empty_message_is_refused(talk):
    one, generator, _ = talk("ok")
    with pytest.raises(ValueError, match="the message is empty"):
        say(one, " \n")
    assert generator.prompt_texts == []


def test_save_false_leaves_no_file(talk, tmp_path):
    one, _, _ = talk("Paris.", save=False)
    say(one, "France?")
    assert list(tmp_path.glob("*.json")) == []


def test_a_summary_of_many_questions_counts_the_earlier_ones(talk):
    one, _, _ = talk(*["ok"] * 25, settings=replace(CHAT_SETTINGS, max_tokens=2))
    say(one, *[f"question {n}" for n in range(25)])
    summary = summarise(one.conversation.messages)
    assert summary.startswith("question 5; ") and summary.endswith("question 24 (and 5 before)")
