"""The three modes of keeping, corrections, and secrets."""

from pathlib import Path

import pytest

from src.memory.keeping import FactKeeper, RememberMode
from src.memory.long_term import LongTermMemory


def keeper(folder: Path, mode: RememberMode, *, can_keep: bool = True) -> tuple[FactKeeper, list[str]]:
    notes: list[str] = []
    return FactKeeper(
        LongTermMemory(folder / "memory.sqlite3", pytest.fail), mode, notes.append, can_keep=can_keep
    ), notes


def kept(facts: FactKeeper) -> list[str]:
    return [fact.text for fact in facts.memory.all()]


def test_auto_keeps_what_is_told_and_corrections_replace_it(tmp_path: Path) -> None:
    facts, notes = keeper(tmp_path, "auto")
    for message in ("My cat is called Miso.", "I don't know.", "My password is hunter2.", "My cat is called Miso."):
        facts.read(message, "a")
    assert kept(facts) == ["My cat is called Miso."] and notes == ["Remembered: My cat is called Miso."]
    facts.read("Actually, my cat is called Momo.", "a")
    assert kept(facts) == ["My cat is called Momo."]
    assert notes[1:] == ["Remembered: My cat is called Momo. Forgotten: My cat is called Miso."]


def test_ask_suggests_and_keeps_only_what_is_requested(tmp_path: Path) -> None:
    facts, notes = keeper(tmp_path, "ask")
    facts.read("My cat is called Miso.", "a")
    assert kept(facts) == [] and notes == ["/remember keeps this in memory: My cat is called Miso."]
    assert facts.keep_text("", "a") == "Remembered: My cat is called Miso."
    with pytest.raises(ValueError, match="/remember TEXT keeps a text"):
        facts.keep_text("", "a")
    facts.read("Remember to buy milk.", "a")
    assert kept(facts) == ["My cat is called Miso.", "Remember to buy milk."]


def test_a_denial_replaces_the_fact_and_says_so(tmp_path: Path) -> None:
    facts, notes = keeper(tmp_path, "auto")
    for message in ("My name is Kim and I have a cat.", "I don't have a dog any more.", "I don't have a cat any more."):
        facts.read(message, "a")
    assert kept(facts) == ["My name is Kim.", "I don't have a cat any more."]
    assert notes == [
        "Remembered: My name is Kim. I have a cat.",
        "Remembered: I don't have a cat any more. Forgotten: I have a cat.",
    ]
    assert not facts.read("I don't see a dog.", "a")  # nothing is told, so facts may be recalled


def test_ask_suggests_a_correction_with_what_it_replaces(tmp_path: Path) -> None:
    facts, notes = keeper(tmp_path, "ask")
    assert facts.keep_text("I live in Rome.", "a") == "Remembered: I live in Rome."
    facts.read("Actually, I live in Milan. I like tea.", "a")
    assert notes == ["/remember keeps this in memory: I live in Milan. I like tea. It replaces: I live in Rome."]
    assert facts.keep_text("", "a") == "Remembered: I live in Milan. I like tea. Forgotten: I live in Rome."
    assert (
        facts.keep_text("I live in Turin now.", "a") == "Remembered: I live in Turin now. Forgotten: I live in Milan."
    )


def test_off_keeps_only_what_the_command_says(tmp_path: Path) -> None:
    facts, notes = keeper(tmp_path, "off")
    facts.read("My cat is called Miso.", "a")
    assert kept(facts) == [] and notes == []
    facts.read("Remember that my cat is called Miso.", "a")
    assert kept(facts) == [] and notes == ["Not remembered: the setting remember is off; /remember TEXT keeps it"]
    assert facts.keep_text(" my  cat ", "a") == "Remembered: my cat."
    assert facts.keep_text("My cat.", "a") == "That is already remembered."


def test_a_requested_secret_is_refused_with_a_reason(tmp_path: Path) -> None:
    facts, notes = keeper(tmp_path, "auto")
    facts.read("Remember that my PIN is 4711.", "a")
    assert notes == ["Not remembered: it looks like a secret; /remember TEXT keeps it, unencrypted"]
    assert kept(facts) == []


def test_nothing_is_kept_in_a_chat_that_is_not_saved(tmp_path: Path) -> None:
    facts, notes = keeper(tmp_path, "auto", can_keep=False)
    facts.read("My cat is called Miso.", "a")
    with pytest.raises(ValueError, match="nothing is saved in this chat"):
        facts.keep_text("My cat", "a")
    assert kept(facts) == [] and notes == []
    facts.read("Remember that I ski.", "a")
    assert kept(facts) == [] and notes == ["Not remembered: nothing is saved in this chat"]


def test_a_disk_error_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, notes = keeper(tmp_path, "auto")
    monkeypatch.setattr(facts.memory, "store", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    facts.read("My cat is called Miso.", "a")
    assert notes == ["The fact was not saved: disk full"]


def test_a_fact_to_forget_is_named_with_the_command_and_stays(tmp_path: Path) -> None:
    facts, notes = keeper(tmp_path, "auto")
    facts.read("My phone number is 07700 900123. My flat number is 14B", "a")
    assert notes.pop() == "Remembered: My phone number is 07700 900123. My flat number is 14B."
    assert facts.read("Forget that my phone number is 07700 900123", "a")
    assert notes == ["/forget 1 deletes it from memory: My phone number is 07700 900123."]
    for message in ("Forget it.", "Forget about the weather.", "I forget my keys."):
        facts.read(message, "a")
    facts.can_keep = False  # as with --prompt, where no command can follow
    assert not facts.read("Please forget my flat number.", "a")
    assert len(notes) == 1 and len(kept(facts)) == 2
