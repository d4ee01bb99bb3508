"""The session that a chat has open: its conversation, its undo history and its file."""

import time
from collections.abc import Sequence

from src.common.messages import Notify
from src.common.turns import TurnChanges, redo_reply, undo_reply
from src.memory.conversation import Conversation, StoredMessage
from src.memory.sessions import SessionStore

SAVE_EVERY_S = 1.0  # while an answer grows: a killed program loses this much of it
_SUMMARY_WORDS, _SUMMARY_QUESTIONS = 8, 20


class OpenSession:
    """One session of a store, saved after every change.

    save: whether it is loaded from the store and saved there. can_write: whether the store can be written; if not,
    sessions can be opened, but none is saved. notify: gets one line for the user when the disk fails.

    `dropped_messages` counts the messages at the start of the conversation that no longer fit the model's context.

    Raises ValueError for an invalid session name, and OSError if the session cannot be read.
    """

    def __init__(self, store: SessionStore, name: str, *, save: bool, can_write: bool, notify: Notify) -> None:
        self.store, self.notify = store, notify
        self._can_write, self.is_saved, self._save_failed = can_write, save and can_write, False
        self._open(store.load(name) if save else Conversation(name))

    def _open(self, conversation: Conversation) -> None:
        self.conversation, self.dropped_messages, self._last_save = conversation, 0, 0.0
        self._changes = TurnChanges(conversation.messages)

    def close(self) -> None:
        """Try again to save the conversation if that has failed."""
        if self._save_failed:
            self.save()

    @property
    def last_turn(self) -> tuple[StoredMessage, StoredMessage] | None:
        """The last message of the user and its answer; None if there is none."""
        messages = self.conversation.messages
        return (messages[-2], messages[-1]) if len(messages) > 1 else None

    # --- turns

    def begin_turn(self, question: str) -> None:
        """Add a turn with an empty answer. `save` it before the answer begins: then a killed program keeps it."""
        self.conversation.messages += [
            StoredMessage("user", question),
            StoredMessage("assistant", "", "interrupted"),
        ]

    def grow_answer(self, text: str) -> None:
        """Save the answer so far, at most once in SAVE_EVERY_S."""
        if time.monotonic() - self._last_save >= SAVE_EVERY_S:
            self.conversation.messages[-1] = StoredMessage("assistant", text, "interrupted")
            self.save()

    def end_turn(self, text: str, finish_reason: str, *, with_previous: bool = False) -> None:
        """Complete the turn. with_previous: `undo` takes it back together with the turn before it."""
        self.conversation.messages[-1] = StoredMessage("assistant", text, finish_reason)
        self.conversation.summary = summarise(self.conversation.messages[: self.dropped_messages])
        turn = self.conversation.messages[-2:]
        if with_previous:
            self._changes.extend(turn)
        else:
            self._changes.add((), turn)
        self.save()

    def replace_answer(self, text: str, finish_reason: str) -> None:
        """Replace the last answer; `undo` brings the old one back."""
        before = self.conversation.messages[-2:]
        self.conversation.messages[-1] = StoredMessage("assistant", text, finish_reason)
        self._changes.add(before, self.conversation.messages[-2:])
        self.save()

    def undo(self) -> str:
        """Undo the last turn, or the last replaced answer. Returns what to tell the user; raises ValueError."""
        removed, restored = self._changes.undo()
        self._after_change()
        return undo_reply(removed, restored)

    def redo(self) -> str:
        """Undo the last `undo`. Returns what to tell the user; raises ValueError."""
        removed, restored = self._changes.redo()
        self._after_change()
        return redo_reply(removed, restored)

    def _after_change(self) -> None:
        self.dropped_messages = min(self.dropped_messages, len(self.conversation.messages))
        self.save()

    # --- sessions

    def reset(self) -> str:
        """Clear the conversation. A saved one is kept as another session first. Returns what to tell the user.

        Raises OSError if it cannot be kept; then nothing is cleared.
        """
        kept = ""
        if self.is_saved and self.conversation.messages:
            self._save_first("so it is not cleared")
            kept = self.store.dated_name(self.conversation.name)
            self._copy_to(kept)
        if not self.conversation.messages:
            return "The conversation is empty."
        self._changes.add(self.conversation.messages, ())
        self.conversation.messages.clear()
        self.conversation.summary, self.dropped_messages = "", 0
        self.save()
        if not kept:
            return "The conversation is cleared. /undo brings it back."
        return (
            f"The conversation is cleared. A copy is kept as session {kept}: /load {kept} opens it, and /delete {kept} "
            "deletes it."
        )

    def start_new(self, name: str = "") -> str:
        """Open an empty session, by default with a dated name. Returns what to tell the user.

        Raises ValueError if a session has the name.
        """
        before, name = self.conversation.name, name or self.store.dated_name("chat")
        self._refuse_taken(name)
        self.switch_to(name)
        back = f" /load {before} opens the previous one." if self.store.exists(before) else ""
        return f"This is the new session {name}.{back}"

    def switch_to(self, name: str) -> None:
        """Open another session, empty if the name is new, and save it from now on. Raises as the store does.

        A conversation that could not be saved stays open until it can be.
        """
        self._save_first("so it stays open")
        conversation = self.store.load(name)
        self.is_saved = self._can_write
        self._open(conversation)

    def save_copy(self, name: str) -> None:
        """Save a copy of the conversation. Raises ValueError if the name is taken, and as the store does."""
        if not self._can_write:
            raise ValueError(f"nothing can be saved in {self.store.folder}")
        self._refuse_taken(name)
        self._copy_to(name)
        self.save()  # the next start reopens the session that was saved last

    def rename(self, new: str) -> None:
        """Rename the open session. Raises as the store does."""
        self.save()  # a new session may have no file yet
        self.store.rename(self.conversation.name, new)
        self.conversation.name = new

    def check_can_delete(self, name: str) -> None:
        """Raises ValueError for the open session, and for one that does not exist."""
        if name == self.conversation.name:
            raise ValueError(f"session {name} is open; /new starts another one, and then it can be deleted")
        self.store.existing_path(name)

    def delete(self, name: str) -> None:
        """Delete another session. Raises as `check_can_delete`, and as the store does."""
        self.check_can_delete(name)
        self.store.delete(name)

    def _save_first(self, otherwise: str) -> None:
        """Save the conversation if that has failed. If it fails again, OSError names the consequence `otherwise`."""
        if not self._save_failed:
            return
        try:
            self.store.save(self.conversation)
        except OSError as error:
            raise OSError(f"session {self.conversation.name} is not saved, {otherwise}: {error}") from error
        self._save_failed = False

    def _refuse_taken(self, name: str) -> None:
        if self.store.exists(name):
            raise ValueError(f"session {name!r} already exists; /load {name} opens it, or choose another name")

    def _copy_to(self, name: str) -> None:
        self.store.save(Conversation(name, list(self.conversation.messages), self.conversation.summary))

    def save(self) -> None:
        """Save the conversation. After a disk error, the user gets one note, and every change tries again."""
        if not self.is_saved:
            return
        conversation = self.conversation
        before = list(conversation.messages)
        try:
            self.store.save(conversation)
            if self._save_failed:
                self.notify("The conversation is saved again")
            self._save_failed = False
        except (OSError, ValueError) as error:
            if not self._save_failed:
                self.notify(f"The conversation was not saved: {error}")
            self._save_failed = True
        self._last_save = time.monotonic()
        if conversation.messages != before:  # merged with another program's turns: recount what fits
            self.dropped_messages = 0


def summarise(messages: Sequence[StoredMessage]) -> str:
    """The first words of each question, or of the last ones if there are many.

    A summary of quotes, because a model of a few million parameters cannot write a summary.
    """
    questions = [message.text for message in messages if message.role == "user"]
    starts = [
        " ".join(words[:_SUMMARY_WORDS]) + ("..." if len(words) > _SUMMARY_WORDS else "")
        for words in map(str.split, questions[-_SUMMARY_QUESTIONS:])
    ]
    earlier = len(questions) - len(starts)
    return "; ".join(starts) + (f" (and {earlier} earlier)" if earlier else "")
