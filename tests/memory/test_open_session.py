"""The open session: nothing is lost by a slip, a kill, or a folder that cannot be written."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.memory import open_session
from src.memory.open_session import OpenSession
from src.memory.private_files import damaged_files, why_not_writable
from src.memory.sessions import SessionStore
from src.memory.typed_history import TypedHistory


def opened(folder: Path, name: str = "talk", *, can_write: bool = True) -> OpenSession:
    return OpenSession(SessionStore(folder, pytest.fail), name, save=True, can_write=can_write, notify=pytest.fail)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[OpenSession]:
    yield opened(tmp_path)


def turn(session: OpenSession, question: str, answer: str) -> None:
    session.begin_turn(question)
    session.save()
    session.end_turn(answer, "stop")


def on_disk(folder: Path, name: str = "talk") -> list[str]:
    return [message["text"] for message in json.loads((folder / f"{name}.json").read_text("utf-8"))["messages"]]


def test_a_kill_during_an_answer_keeps_the_question_and_the_text_so_far(
    session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.begin_turn("Tell me")
    session.save()
    assert on_disk(tmp_path) == ["Tell me", ""]
    session.grow_answer("Once")  # too soon after the last save
    assert on_disk(tmp_path) == ["Tell me", ""]
    monkeypatch.setattr(open_session, "SAVE_EVERY_S", 0.0)
    session.grow_answer("Once upon")
    assert on_disk(tmp_path) == ["Tell me", "Once upon"]
    again = opened(tmp_path)
    assert again.last_turn is not None and again.last_turn[1].finish_reason == "interrupted"


def test_turns_and_replaced_answers_are_taken_back_and_brought_back(session: OpenSession, tmp_path: Path) -> None:
    turn(session, "France?", "Paris.")
    turn(session, "Italy?", "Rome.")
    session.replace_answer("ROME", "stop")
    assert "The earlier answer to" in session.undo() and on_disk(tmp_path)[2:] == ["Italy?", "Rome."]
    assert session.undo().startswith('Took back "Italy?"; ') and on_disk(tmp_path) == ["France?", "Paris."]
    assert session.redo() == '"Italy?" is back.' and on_disk(tmp_path)[2:] == ["Italy?", "Rome."]
    session.redo()
    assert on_disk(tmp_path)[2:] == ["Italy?", "ROME"]
    with pytest.raises(ValueError, match="nothing to bring back"):
        session.redo()
    again = opened(tmp_path)  # a turn of an earlier run can be taken back, too
    again.undo()
    again.undo()
    assert on_disk(tmp_path) == []
    with pytest.raises(ValueError, match="nothing to take back"):
        again.undo()


def test_undo_leaves_the_turns_of_another_program(session: OpenSession, tmp_path: Path) -> None:
    session.notify = session.store.notify = lambda _: None
    turn(session, "mine", "1")
    other = opened(tmp_path)
    turn(other, "theirs", "2")
    turn(session, "mine again", "3")
    session.undo()
    session.undo()
    assert on_disk(tmp_path) == ["theirs", "2"]


def test_reset_keeps_a_dated_copy_and_can_be_undone(session: OpenSession, tmp_path: Path) -> None:
    assert session.reset() == "The conversation is empty."
    turn(session, "France?", "Paris.")
    reply = session.reset()
    (copy,) = (info.name for info in session.store.list_sessions() if info.name != "talk")
    assert f"kept as session {copy}: /load {copy} opens it, and /delete {copy} deletes it" in reply
    assert on_disk(tmp_path) == [] and on_disk(tmp_path, copy) == ["France?", "Paris."]
    assert session.undo() == "The conversation is back." and on_disk(tmp_path) == ["France?", "Paris."]
    assert session.redo() == "The conversation is cleared again." and on_disk(tmp_path) == []


def test_a_failed_copy_clears_nothing(session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn(session, "France?", "Paris.")
    monkeypatch.setattr(session.store, "save", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        session.reset()
    assert session.conversation.turn_count == 1 and on_disk(tmp_path) == ["France?", "Paris."]


def test_sessions_are_started_renamed_and_deleted(session: OpenSession, tmp_path: Path) -> None:
    turn(session, "France?", "Paris.")
    session.rename("trip")
    assert on_disk(tmp_path, "trip") == ["France?", "Paris."] and not (tmp_path / "talk.json").exists()
    assert session.start_new().startswith("This is the new session chat-2")
    with pytest.raises(ValueError, match="already exists"):
        session.start_new("trip")
    with pytest.raises(ValueError, match="is open; /new starts another"):
        session.delete(session.conversation.name)
    session.check_can_delete("trip")
    assert session.store.exists("trip")
    session.delete("trip")
    for attempt in (session.check_can_delete, session.delete):
        with pytest.raises(ValueError, match="there is no session trip"):
            attempt("trip")


def test_a_name_of_64_letters_can_be_dated(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, pytest.fail)
    first = store.dated_name("x" * 64)
    (tmp_path / f"{first}.json").write_text("{}", encoding="utf-8")
    assert store.dated_name("x" * 64) != first and len(store.dated_name("x" * 64)) <= 64
    assert re.fullmatch(r"talk-\d{8}-\d{6}", store.dated_name(store.dated_name("talk")))


def test_a_folder_that_cannot_be_written_opens_and_saves_nothing(session: OpenSession, tmp_path: Path) -> None:
    turn(session, "France?", "Paris.")
    reader = opened(tmp_path, can_write=False)
    turn(reader, "Italy?", "Rome.")
    reader.switch_to("other")
    turn(reader, "Spain?", "Madrid.")
    assert reader.reset() == "The conversation is cleared. /undo brings it back."
    with pytest.raises(ValueError, match="nothing can be saved"):
        reader.save_copy("copy")
    assert on_disk(tmp_path) == ["France?", "Paris."] and len(list(tmp_path.glob("*.json"))) == 1


def test_traces_of_a_deleted_fact_are_found(session: OpenSession, tmp_path: Path) -> None:
    turn(session, "Hi. my cat is  called MISO, you know", "Nice.")
    (tmp_path / "old.damaged-1.json").write_text("", encoding="utf-8")
    found = session.store.list_sessions(["My cat is called Miso.", "x"])
    assert [(info.name, info.first) for info in found] == [("talk", "Hi. my cat is  called MISO, you know")]
    assert session.store.list_sessions(["My dog is called Miso."]) == []
    assert damaged_files(tmp_path) == ["old.damaged-1.json"]


def test_typed_lines_are_deleted_here_and_in_the_file(tmp_path: Path) -> None:
    history = TypedHistory(tmp_path / "typed_lines", pytest.fail)
    for line in ("one", "my secret\nin two lines", "three"):
        history.append_string(line)
    list(history.load_history_strings())
    assert history.delete(lambda line: "secret" in line) == 1
    assert b"secret" not in (tmp_path / "typed_lines").read_bytes()
    assert list(history.load_history_strings()) == ["three", "one"] and "my secret" not in str(history.get_strings())
    assert history.delete(lambda line: "secret" in line) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_not_writable(tmp_path, monkeypatch):
    assert why_not_writable(tmp_path) == ""
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: full)
        assert why_not_writable(tmp_path) == "No space left on device"


def test_a_conversation_that_the_disk_refused_stays_open_until_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    session = OpenSession(SessionStore(tmp_path, notes.append), "talk", save=True, can_write=True, notify=notes.append)

    def refuse(path: Path, content: bytes) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as full:
        full.setattr("src.memory.sessions.write_private", refuse)
        turn(session, "France?", "Paris.")
        for leave in (session.start_new, lambda: session.switch_to("other")):
            with pytest.raises(OSError, match="session talk is not saved, so it stays open: disk full"):
                leave()
        with pytest.raises(OSError, match="session talk is not saved, so it is not cleared: disk full"):
            session.reset()
    assert session.conversation.name == "talk" and len(session.conversation.messages) == 2
    session.close()
    assert notes == ["The conversation was not saved: disk full", "The conversation is saved again"]
    assert on_disk(tmp_path) == ["France?", "Paris."]
    session.switch_to("other")
