"""Saved conversations: they round-trip, are never half written, and merge with another program's changes."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest

from src.common import atomic_file
from src.memory import conversation as conversation_module
from src.memory import private_files
from src.memory.conversation import Conversation, StoredMessage
from src.memory.private_files import locked
from src.memory.sessions import SessionStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, notes: list[str]) -> SessionStore:
    return SessionStore(tmp_path / "logs" / "sessions", notes.append)


def turn(question: str, answer: str = "Yes.") -> list[StoredMessage]:
    return [StoredMessage("user", question), StoredMessage("assistant", answer, "stop")]


def saved(store: SessionStore, *questions: str, name: str = "x") -> Conversation:
    conversation = store.load(name)
    for question in questions:
        conversation.messages += turn(question)
    store.save(conversation)
    return conversation


def questions(conversation: Conversation) -> list[str]:
    return [message.text for message in conversation.messages if message.role == "user"]


def test_a_conversation_round_trips(store: SessionStore, notes: list[str]) -> None:
    conversation = store.load("x")
    assert conversation == Conversation("x")
    hostile = 'é 猫 \x00\x1b[31m </message> {{$x}} <|endoftext|> " \\ \r\n\u2028' + "long " * 20_000
    conversation.messages += [StoredMessage("system", "Be brief."), *turn(hostile), *turn("cut", "")]
    conversation.summary = "They spoke of cats."
    path = store.save(conversation)
    assert store.load("x") == conversation
    assert conversation.revision == 1
    assert "猫" in path.read_text(encoding="utf-8") and notes == []


def test_lone_surrogates_are_replaced(store: SessionStore) -> None:
    conversation = saved(store, "a\ud800b", "c")
    conversation.summary = "\udfff"
    store.save(conversation)
    assert questions(store.load("x")) == ["a\N{REPLACEMENT CHARACTER}b", "c"]
    assert store.load("x").summary == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_the_owner_can_read_folder_and_file(store: SessionStore) -> None:
    saved(store, "a")
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.folder / "x.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "name",
    ["", "a" * 65, "../x", "a/b", "a\\b", "x.json", "naïve", "a b", ".", "x\n", "CON", "nul", "Com1", "lpt9", "WORK"],
)
def test_names_that_some_file_system_rejects_are_refused(store: SessionStore, name: str) -> None:
    saved(store, "a", name="work")
    for refused in (store.load, store.delete, lambda name: store.save(Conversation(name))):
        with pytest.raises(ValueError, match="is not a valid name: |use that one or choose") as error:
            refused(name)
        assert "\n" not in str(error.value)
    assert [info.name for info in store.list_sessions()] == ["work"]


HEAD = '{"format": 1, "revision": 1, "summary": "", '
DAMAGED = [
    (b"", "Expecting value"), (b"{", "line 1 column 2"), (b"[]", "expected a JSON object, found list"),
    (b"\xff\xfe", "Expecting value"), (b"null", "found NoneType"), (b"[" * 100_000, "recursion"),
    (b'{"format": 0}', "'format' is 0"), (b'{"format": NaN}', "'format' is nan"), (b'{"a": 1}', "'format' is None"),
    ((HEAD + '"messages": [],}').encode(), "line 1 column"),
    ((HEAD + '"messages": [{"role": "user", "text": 5}]}').encode(), "message 1: 'text' or 'finish_reason' is not"),
    ((HEAD + '"messages": [{"role": "king", "text": "a"}]}').encode(), "message 1: 'role' is 'king', expected"),
    ((HEAD + '"messages": [{"role": [], "text": "a"}]}').encode(), "message 1: 'role' is []"),
    ((HEAD + '"messages": [{"role": "user"}]}').encode(), "message 1: 'text'"),
    ((HEAD + '"messages": [{"role": "user", "text": "a", "when": 1}]}').encode(), "message 1: unknown key 'when'"),
    ((HEAD + '"messages": [[]]}').encode(), "message 1: expected a JSON object, found list"),
    (b'{"format": 1, "revision": 1, "summary": 7, "messages": []}', "'summary' is missing or has the wrong type"),
    (b'{"format": 1, "revision": true, "summary": "", "messages": []}', "'revision' is missing or"),
    (b'{"format": 1, "revision": 1e400, "summary": "", "messages": []}', "'revision' is missing or"),
    (b'{"format": 1, "revision": 1, "summary": ""}', "'messages' is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_renamed_with_a_note(
    store: SessionStore, notes: list[str], content: bytes, reason: str
) -> None:
    path = store.save(store.load("x"))
    for n in (1, 2):
        path.write_bytes(content)
        assert store.load("x") == Conversation("x")
        assert path.with_name(f"x.damaged-{n}.json").read_bytes() == content
        assert "x.json: damaged" in notes[-1] and f"x.damaged-{n}.json" in notes[-1] and reason in notes[-1]
        assert "\n" not in notes[-1] and len(notes) == n
    assert store.list_sessions() == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_saved_by_another_editor_is_read(store: SessionStore, notes: list[str], encoding: str) -> None:
    path = store.save(saved(store, "Größe 猫?"))
    path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    assert questions(store.load("x")) == ["Größe 猫?"]
    assert notes == []


def test_saving_over_a_damaged_file_renames_it_first(store: SessionStore) -> None:
    conversation = saved(store, "a")
    (store.folder / "x.json").write_bytes(b"damaged")
    store.save(conversation)
    assert questions(store.load("x")) == ["a"]
    assert (store.folder / "x.damaged-1.json").read_bytes() == b"damaged"


def test_a_file_of_a_newer_version_is_refused_and_unchanged(store: SessionStore, notes: list[str]) -> None:
    path = store.save(store.load("x"))
    newer = json.dumps({"format": 2, "other": []})
    path.write_text(newer, encoding="utf-8")
    for refused in (lambda: store.load("x"), lambda: store.save(Conversation("x"))):
        with pytest.raises(ValueError, match="newer version"):
            refused()
    assert path.read_text(encoding="utf-8") == newer
    assert store.list_sessions() == [] and "newer version" in notes[-1]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_only_the_old_file(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    conversation = saved(store, "a")
    before = (store.folder / "x.json").read_bytes()
    conversation.messages += turn("b")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(atomic_file.os, failing, full)
        with pytest.raises(OSError, match=r"x\.json: could not be written \(No space left on device\)"):
            store.save(conversation)
    assert (store.folder / "x.json").read_bytes() == before
    assert sorted(path.name for path in store.folder.iterdir()) == [".lock", "x.json"]
    store.save(conversation)
    assert questions(store.load("x")) == ["a", "b"]


def test_saving_retries_while_a_scanner_holds_the_file(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refusals = os.replace, [PermissionError(13, "Access is denied")] * 2

    def replace(*paths: Path) -> None:
        if refusals:
            raise refusals.pop()
        real(*paths)

    monkeypatch.setattr(atomic_file.os, "replace", replace)
    saved(store, "a")
    assert questions(store.load("x")) == ["a"]


def test_temporary_files_of_a_killed_program_are_removed(store: SessionStore) -> None:
    saved(store, "a")
    leftover = store.folder / ".x.json.1-0123abcd.tmp"
    leftover.write_text("half", encoding="utf-8")
    os.utime(leftover, (0, 0))
    saved(store, "b")
    assert not list(store.folder.glob("*.tmp"))


@pytest.mark.parametrize("folder", ["file", "file/folder", "locked"])
def test_an_unusable_folder_is_a_one_line_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "locked" / ".lock").mkdir(parents=True)
    with pytest.raises(OSError, match="cannot be (read|created|written to).* --memory-dir") as error:
        SessionStore(tmp_path / folder, print).save(Conversation("x"))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


# --- two programs, one conversation


def two_open(store: SessionStore) -> tuple[Conversation, Conversation]:
    saved(store, "a", "b")
    return store.load("x"), store.load("x")


def test_turns_of_two_programs_are_merged(store: SessionStore, notes: list[str]) -> None:
    ours, theirs = two_open(store)
    theirs.messages += turn("theirs")
    ours.messages += turn("ours")
    store.save(theirs)
    assert notes == []
    store.save(ours)
    assert questions(ours) == ["a", "b", "theirs", "ours"] and "another program" in notes[0]
    assert store.load("x") == ours
    ours.messages += turn("more")
    store.save(ours)
    assert len(notes) == 1 and ours.revision == 4


def test_saving_without_changes_only_counts_the_revision(store: SessionStore) -> None:
    ours, theirs = two_open(store)
    store.save(theirs)
    store.save(ours)
    assert questions(ours) == ["a", "b"] and ours.revision == 3


def test_a_turn_costs_the_same_in_a_long_conversation(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = saved(store, "one", "two")
    encoded, dumps = [], json.dumps
    monkeypatch.setattr(
        conversation_module.json, "dumps", lambda value, **options: encoded.append(value) or dumps(value, **options)
    )
    monkeypatch.setattr(conversation_module, "_parse", lambda *_: pytest.fail("the unchanged file was parsed"))
    conversation.messages += turn("three")
    path = store.save(conversation)
    assert [value["text"] for value in encoded if "text" in value] == ["three", "Yes."]
    assert path.read_text(encoding="utf-8").count("\n") == 8  # a line per message, and one before and after


def test_merging_keeps_removals_and_additions(store: SessionStore) -> None:
    ours, theirs = two_open(store)
    del theirs.messages[:2]
    theirs.summary = "Of a."
    store.save(theirs)
    ours.messages += turn("c")
    store.save(ours)
    assert (questions(ours), ours.summary) == (["b", "c"], "Of a.")
    ours, theirs = store.load("x"), store.load("x")
    ours.messages.clear()
    ours.summary = ""
    theirs.messages += turn("d")
    store.save(theirs)
    store.save(ours)
    assert (questions(ours), ours.summary) == (["d"], "")


def test_merging_a_refined_answer_keeps_turns_whole(store: SessionStore) -> None:
    ours, theirs = two_open(store)
    theirs.messages[-1] = StoredMessage("assistant", "Refined.", "stop")
    theirs.summary, ours.summary = "theirs", "ours"
    store.save(theirs)
    ours.messages += turn("c")
    store.save(ours)
    assert [message.text for message in ours.messages] == ["a", "Yes.", "b", "Refined.", "c", "Yes."]
    assert ours.summary == "theirs\nours"
    ours, theirs = store.load("x"), store.load("x")
    theirs.messages += turn("d")
    ours.messages[-1] = StoredMessage("assistant", "Refined here.", "stop")
    store.save(theirs)
    store.save(ours)
    assert [message.text for message in ours.messages[4:]] == ["d", "Yes.", "c", "Refined here."]


def test_two_processes_saving_at_once_lose_nothing(store: SessionStore) -> None:
    code = (
        "import sys; from pathlib import Path; from src.memory.sessions import *\n"
        "from src.memory.conversation import StoredMessage\n"
        "store = SessionStore(Path(sys.argv[1]), lambda note: None)\n"
        "conversation = store.load('x')\n"
        "for n in range(20):\n"
        "    messages = (('user', f'{sys.argv[2]}{n}'), ('assistant', 'Yes.'))\n"
        "    conversation.messages += [StoredMessage(*message) for message in messages]\n"
        "    store.save(conversation)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(store.folder), who], cwd=ROOT) for who in "AB"]
    assert [process.wait() for process in processes] == [0, 0]
    saved_questions = questions(store.load("x"))
    assert len(saved_questions) == 40
    for who in "AB":
        assert [text for text in saved_questions if text[0] == who] == [f"{who}{n}" for n in range(20)]


def test_a_held_lock_times_out_and_a_released_one_is_taken(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_files, "LOCK_TIMEOUT_S", 0.1)
    conversation = saved(store, "a")
    with locked(store.folder), pytest.raises(OSError, match="another program has held its lock for 0.1 s"):
        store.save(conversation)
    store.save(conversation)


def test_a_session_that_vanished_is_saved_again_with_a_note(store: SessionStore, notes: list[str]) -> None:
    conversation = saved(store, "a", name="old")
    store.rename("old", "new")
    for _ in range(2):
        store.save(conversation)
    assert notes == ["session old: another program deleted or renamed it; it is saved again"]
    assert store.exists("old") and store.exists("new")


# --- the list


def test_a_file_that_cannot_be_read_is_named_with_a_fitting_remedy(store: SessionStore, notes: list[str]) -> None:
    saved(store, "a", name="mine")
    (store.folder / "theirs.json").mkdir()
    with pytest.raises(
        OSError, match="theirs.json: cannot be read .*; check its permissions, or choose another session"
    ):
        store.load("theirs")
    assert [info.name for info in store.list_sessions()] == ["mine"] and "theirs.json: cannot be read" in notes[0]


def test_sessions_are_listed_last_saved_first(store: SessionStore) -> None:
    saved(store, "a", "b", name="first")
    saved(store, name="second")
    os.utime(store.folder / "first.json", (50, 50))
    os.utime(store.folder / "second.json", (10, 10))
    assert [astuple(info) for info in store.list_sessions()] == [("first", 2, 50.0, "a"), ("second", 0, 10.0, "")]


def test_delete_removes_a_session_and_refuses_a_missing_one(store: SessionStore) -> None:
    saved(store, "a", name="one")
    saved(store, "a", name="two")
    store.delete("one")
    assert store.load("one").messages == []
    with pytest.raises(ValueError, match="there is no session one; the sessions are: two"):
        store.delete("one")
