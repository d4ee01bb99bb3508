"""Keeps what a person tells about themselves: at once, after a question, or not at all."""

from collections.abc import Callable

from src.memory.facts import RememberMode, Statement, find_statement
from src.memory.long_term import LongTermMemory


class FactKeeper:
    """Decides what a chat keeps in long-term memory.

    mode: "auto" keeps what a message clearly tells about its writer, "ask" suggests to keep it, "off" keeps nothing. In
    "auto" and "ask", "Remember that ..." is kept. can_keep: False if nothing is saved at all.
    notify: gets one line for the user about everything that is kept or suggested.
    """

    def __init__(
        self, memory: LongTermMemory, mode: RememberMode, notify: Callable[[str], None], *, can_keep: bool
    ) -> None:
        self.memory, self.mode, self.notify, self.can_keep = memory, mode, notify, can_keep
        self.suggestion = ""  # what was last suggested in the mode "ask"

    def read(self, message: str, session: str) -> bool:
        """Keep or suggest what a message tells. A secret is never kept. Returns whether the message tells something."""
        statement = find_statement(message)
        if statement is None:
            return False
        if refusal := self._refusal(statement):
            if statement.requested:
                self.notify(f"Not remembered: {refusal}")
        elif statement.requested or self.mode == "auto":
            self._keep(statement, session)
        else:
            self.suggestion = statement.text
            self.notify(f"/remember keeps this in memory: {statement.text}")
        return True

    def _refusal(self, statement: Statement) -> str:
        """Why a statement may not be kept; "" if it may."""
        if not self.can_keep:
            return "nothing is saved in this chat"
        if self.mode == "off":
            return "the setting remember is off; /remember TEXT keeps it"
        return "it looks like a secret; /remember TEXT keeps it, unencrypted" if statement.is_secret else ""

    def keep_text(self, text: str, session: str) -> str:
        """Keep a text, or without one, what was suggested. Returns what to tell the user.

        Raises ValueError if there is nothing to keep or nothing can be saved, and OSError if saving fails.
        """
        if not self.can_keep:
            raise ValueError("nothing is saved in this chat, so nothing can be remembered")
        if not text and not self.suggestion:
            raise ValueError("/remember TEXT keeps a text in memory: /remember My cat is called Miso.")
        fact = self.memory.store(" ".join((text or self.suggestion).split()), session)
        self.suggestion = ""
        return f"Remembered: {fact.text}" if fact else "That is already remembered."

    def _keep(self, statement: Statement, session: str) -> None:
        try:
            old = self.memory.corrected_by(statement.text) if statement.corrects else []
            fact = self.memory.store(statement.text, session, [each.id for each in old])
        except OSError as error:
            self.notify(f"The fact was not saved: {error}")
            return
        if fact:
            forgotten = f" Forgotten: {' '.join(each.text for each in old)}" if old else ""
            self.notify(f"Remembered: {fact.text}{forgotten}")
