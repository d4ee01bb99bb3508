"""Keeps facts that the user states: at once, after a suggestion, or not at all."""

from collections.abc import Iterable, Sequence
from typing import Literal

from src.common.messages import Notify
from src.memory.contradictions import is_correction_of, is_still_true, outdated_questions
from src.memory.facts import Statement, as_statement, find_statements, sentences_of, texts_to_forget
from src.memory.long_term import Fact, LongTermMemory
from src.memory.words import as_sentence, normalised

RememberMode = Literal["ask", "auto", "off"]


class FactKeeper:
    """Decides what a chat keeps in long-term memory.

    mode: "auto" keeps the facts that a message clearly states about its writer, "ask" suggests keeping them, and "off"
    keeps nothing. In "auto" and "ask", "Remember that ..." is kept. can_keep: False if nothing is saved in this chat.
    notify: gets one line for the user about every fact that is kept, replaced or suggested.
    """

    def __init__(self, memory: LongTermMemory, mode: RememberMode, notify: Notify, *, can_keep: bool) -> None:
        self.memory, self.mode, self.notify, self.can_keep = memory, mode, notify, can_keep
        self.suggested: list[Statement] = []  # what was last suggested in the mode "ask"
        self._last_message = ""
        self._noted: set[int] = set()  # the facts that a note called doubtful: one note for each is enough

    def read(self, message: str, session: str) -> bool:
        """Keep or suggest the facts that a message states, but no secrets. Returns whether it is about facts.

        If the message asks to forget a fact, or may contradict one, a note names the command: a fact is not deleted on
        a guess.
        """
        message_before, self._last_message = self._last_message, message
        try:
            told = [each for each in find_statements(message) if each.stands_alone or self.memory.replaced_by(each)]
            unwanted = self._to_forget(message) if self.can_keep else []
            doubtful = self._doubtful(message, told, message_before) if self.can_keep else []
            for fact in unwanted:
                self.notify(f"/forget {fact.id} deletes it from memory: {as_sentence(fact.text)}")
            self._keep_or_suggest(told, session)
            for fact in doubtful:
                advice = "" if told else ", and /remember TEXT keeps what is true now"
                self.notify(f'this may contradict fact {fact.id}, "{fact.text}": /forget {fact.id} deletes it{advice}')
            self._noted.update(fact.id for fact in doubtful)
        except OSError as error:
            self.notify(f"The fact was not saved: {error}")
            return True
        return bool(told or unwanted or doubtful)

    def keep_text(self, text: str, session: str) -> str:
        """Keep a text, or without one, what was suggested. Returns what to tell the user.

        Raises ValueError if there is nothing to keep or nothing can be saved, and OSError if saving fails.
        """
        if not self.can_keep:
            raise ValueError("nothing is saved in this chat, so nothing can be remembered")
        statements = [as_statement(" ".join(text.split()))] if text else self.suggested
        if not statements:
            raise ValueError("/remember TEXT keeps a text in memory: /remember My cat is called Miso.")
        self.suggested = []
        return self._keep(statements, session) or "That is already remembered."

    def still_kept(self, message: str) -> list[Fact]:
        """The facts in memory that a message states."""
        told = {normalised(each.text) for each in find_statements(message)}
        return [fact for fact in self.memory.all() if normalised(fact.text) in told] if told else []

    def _to_forget(self, message: str) -> list[Fact]:
        """The saved facts that a message asks to forget."""
        found = [self.memory.recall(text, top=1) for text in texts_to_forget(message)]
        return [recalled[0].fact for recalled in found if recalled]

    def _doubtful(self, message: str, told: Sequence[Statement], message_before: str) -> list[Fact]:
        """The saved facts that a message may contradict.

        Without those that its statements repeat or replace, and those of an earlier note.
        """
        found: list[Fact] = []
        facts_before = self.still_kept(message_before)
        for sentence in sentences_of(message):
            found += [fact for fact in facts_before if is_correction_of(sentence, fact.text)]
            for question in outdated_questions(sentence):
                recalled = [each.fact for each in self.memory.recall(question) if each.score == 1]  # has all its words
                found += [fact for fact in recalled if not is_still_true(fact.text, sentence)]
        settled = [fact for statement in told for fact in self.memory.replaced_by(statement)] + self.still_kept(message)
        return [fact for fact in dict.fromkeys(found) if fact not in settled and fact.id not in self._noted]

    def _keep_or_suggest(self, told: Sequence[Statement], session: str) -> None:
        """Keep or suggest statements, as the mode says. If a requested one is refused, say why."""
        requested = [statement for statement in told if statement.requested]
        if requested and (refusal := self._refusal(requested)):
            self.notify(f"Not remembered: {refusal}")
        if self.can_keep and self.mode != "off":
            safe = [statement for statement in told if not statement.is_secret]
            now = safe if self.mode == "auto" else [statement for statement in safe if statement.requested]
            if line := self._keep(now, session):
                self.notify(line)
            self._suggest([statement for statement in safe if statement not in now])

    def _refusal(self, requested: Sequence[Statement]) -> str:
        """Why requested statements may not be kept; "" if they may."""
        if not self.can_keep:
            return "nothing is saved in this chat"
        if self.mode == "off":
            return "the setting remember is off; /remember TEXT keeps it"
        if any(statement.is_secret for statement in requested):
            return "it looks like a secret; /remember TEXT keeps it, unencrypted"
        return ""

    def _suggest(self, statements: Sequence[Statement]) -> None:
        if not statements:
            return
        self.suggested = list(statements)
        old = [fact for statement in statements for fact in self.memory.replaced_by(statement)]
        instead = f" It replaces: {_joined(old)}" if old else ""
        self.notify(f"/remember keeps this in memory: {_joined(statements)}{instead}")

    def _keep(self, statements: Iterable[Statement], session: str) -> str:
        """Store statements. Returns what to tell the user; "" if all are stored already."""
        kept: list[Fact] = []
        deleted: list[Fact] = []
        for statement in statements:
            fact, old = self.memory.keep(statement, session)
            kept += [fact] if fact else []
            deleted += old
        lines = [f"Remembered: {_joined(kept)}"] if kept else []
        return " ".join(lines + ([f"Forgotten: {_joined(deleted)}"] if deleted else []))


def _joined(texts: Iterable[Fact | Statement]) -> str:
    return " ".join(as_sentence(each.text) for each in texts)
