"""Facts that the user stated in any conversation, in one SQLite file, searched by the words of a question.

SQLite's full-text index FTS5 finds and ranks them with English stemming: no other library, no download, no vectors.
"""

import math
import sqlite3
import threading
import time
from collections.abc import Generator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from src.common.checks import is_number
from src.common.messages import Notify, without_surrogates
from src.memory.corrections import replaces
from src.memory.fact_file import DamagedFile, as_text, connect, open_copy, purge_deleted_words
from src.memory.facts import Statement, find_statements
from src.memory.private_files import explain, locked, quarantine
from src.memory.relevance import FIRST_PERSON, is_personal, may_answer
from src.memory.synonyms import question_terms, with_synonyms
from src.memory.words import STOP_WORDS, normalised, search_terms, words_of

_YEAR_10000 = 253_402_300_800  # Unix time; Python's dates end there

# The minimum score of a recalled fact: for a question about the user ("my", "we"), and for any other question. Chosen
# with benchmarks/memory_recall.py.
MIN_SCORE_PERSONAL, MIN_SCORE_OTHER = 0.25, 0.5
# Inverse document frequencies assume at least this many facts: with only a few, every word would look common.
_MIN_FACT_COUNT = 100
_MAX_QUERY_WORDS = 100

_COLUMNS = "memory.id, memory.text, memory.session, memory.created"


@dataclass(frozen=True)
class Fact:
    """A fact in the user's words, the session it comes from, and when it was stored (Unix time; None if unknown)."""

    id: int
    text: str
    session: str
    created: float | None

    @classmethod
    def of(cls, row: Sequence[object]) -> "Fact":
        """The fact in a row of _COLUMNS. Another program may have written any value: SQLite does not check types."""
        id, text, session, created = row
        known = created if is_number(created) and 0 <= created < _YEAR_10000 else None
        return cls(int(str(id)), as_text(text), as_text(session), known)


@dataclass(frozen=True)
class RecalledFact:
    """A fact and its relevance to a question, from 0 to 1; see LongTermMemory.recall."""

    fact: Fact
    score: float


class _Match(NamedTuple):
    """How well a fact matches a query. words: those of the query that it contains in some form."""

    score: float
    words: set[str]


class LongTermMemory:
    """The facts in one SQLite file. Several programs and threads can use the file at the same time.

    A damaged file is renamed and replaced by an empty one; `notify` gets a one-line message. Raises ValueError for a
    file of a newer version or of another program. Every method raises OSError with a one-line message if the file
    cannot be used.

    can_write: if not, the facts of the file are read, and none can be stored or deleted.
    """

    def __init__(self, path: Path, notify: Notify, *, can_write: bool = True) -> None:
        self.path = Path(path)
        self._mutex = threading.Lock()
        if not can_write:
            self._db = open_copy(self.path)
            return
        with locked(self.path.parent):
            try:
                self._db = connect(self.path)
            except DamagedFile as error:
                moved_to = quarantine(self.path)
                notify(f"{self.path}: damaged ({error}); renamed to {moved_to.name}, starting with an empty memory")
                self._db = connect(self.path)

    def remember(self, message: str, session: str) -> list[Fact]:
        """Store what a message states about the user. Returns the new facts. A secret is never stored."""
        statements = find_statements(without_surrogates(message))
        kept = [self.keep(statement, session)[0] for statement in statements if not statement.is_secret]
        return [fact for fact in kept if fact]

    def keep(self, statement: Statement, session: str) -> tuple[Fact | None, list[Fact]]:
        """Store a statement, and delete the facts that it makes untrue.

        Returns the new fact, or None if nothing is to be stored or it is stored already, and the deleted facts.
        """
        old = self.replaced_by(statement)
        if not (statement.stands_alone or old):
            return None, []
        return self.store(statement.text, session, [fact.id for fact in old]), old

    def store(self, text: str, session: str, replaced: Sequence[int] = ()) -> Fact | None:
        """Store a text as a fact, and delete the facts `replaced`. Returns None if the text is stored already."""
        text = without_surrogates(text)
        row = (text, without_surrogates(session), time.time())
        with self._using() as db:
            db.execute("BEGIN IMMEDIATE")
            for id in replaced:
                db.execute("DELETE FROM memory WHERE id = ?", (id,))
            insert = "INSERT OR IGNORE INTO memory(text, session, created, same, terms) VALUES (?, ?, ?, ?, ?)"
            cursor = db.execute(insert, (*row, normalised(text), search_terms(text)))
            purge_deleted_words(db)
            db.execute("COMMIT")
            return Fact(cursor.lastrowid or 0, *row) if cursor.rowcount else None

    def recall(self, query: str, top: int = 3) -> list[RecalledFact]:
        """Up to `top` facts relevant to the query, highest score first; often none.

        A score is the weight of the query words in the fact, divided by the weight of all query words. Rare words weigh
        more: the weight is BM25's inverse document frequency. A fact may have another word for the same, as "drive" for
        "car". FTS5's BM25 breaks ties, then the newest fact wins. Facts about another person or thing than the query's
        are left out: see relevance.py.
        """
        query = without_surrogates(query)
        query_words = words_of(question_terms(query))
        words = [word for word in query_words if word not in STOP_WORDS][:_MAX_QUERY_WORDS]
        personal = [word for word in query_words if word in FIRST_PERSON]
        if not words:
            return []
        min_score = MIN_SCORE_PERSONAL if is_personal(query) else MIN_SCORE_OTHER
        with self._using() as db:
            db.execute("BEGIN")  # one snapshot for all queries
            matches = {id: match for id, match in _matches(db, words).items() if match.score >= min_score}
            forms = [form for word in words for form in with_synonyms(word)]
            facts = _ranked(db, [*forms, *personal], matches.keys()) if matches else []
        found = [
            RecalledFact(fact, matches[fact.id].score)
            for fact in facts
            if may_answer(query, fact.text, matches[fact.id].words)
        ]
        found.sort(key=lambda recalled: recalled.score, reverse=True)  # stable: ties stay in FTS5's order
        return found[:top]

    def replaced_by(self, statement: Statement) -> list[Fact]:
        """The facts that a statement makes untrue; see corrections.py."""
        return [fact for fact in self.all() if replaces(statement.text, fact.text, corrects=statement.corrects)]

    def all(self) -> list[Fact]:
        """Every fact, oldest first."""
        with self._using() as db:
            return [Fact.of(row) for row in db.execute(f"SELECT {_COLUMNS} FROM memory ORDER BY id")]

    def forget(self, id: int) -> Fact:
        """Delete a fact, also from the index. Raises ValueError listing the ids that exist."""
        with self._using() as db:
            db.execute("BEGIN IMMEDIATE")
            # As text: SQLite refuses integers of more than 64 bits.
            row = db.execute(f"SELECT {_COLUMNS} FROM memory WHERE id = ?", (str(id),)).fetchone()
            if row is None:
                ids = [str(id) for (id,) in db.execute("SELECT id FROM memory ORDER BY id")]
                listed = ", ".join(ids[-20:]) or "none"
                more = f" and {len(ids) - 20} older ones" if len(ids) > 20 else ""
                raise ValueError(f"there is no fact {id}; the numbers are: {listed}{more}")
            db.execute("DELETE FROM memory WHERE id = ?", (row[0],))
            purge_deleted_words(db)
            db.execute("COMMIT")
            return Fact.of(row)

    def rename_session(self, old: str, new: str) -> None:
        """Name the facts of a renamed session after its new name."""
        with self._using() as db:
            db.execute("UPDATE memory SET session = ? WHERE session = ?", (new, old))

    def close(self) -> None:
        with self._mutex:
            self._db.close()

    @contextmanager
    def _using(self) -> Generator[sqlite3.Connection, None, None]:
        """The database, for one thread at a time. An uncommitted transaction is rolled back."""
        with self._mutex:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise OSError(f"{self.path}: {explain(error)}") from error
            finally:
                with suppress(sqlite3.Error):
                    self._db.rollback()


def _matches(db: sqlite3.Connection, words: Sequence[str]) -> dict[int, _Match]:
    """By fact id, the match of every fact that contains at least one of the words."""
    (fact_count,) = db.execute("SELECT max(count(*), ?) FROM memory", (_MIN_FACT_COUNT,)).fetchone()
    weights: dict[int, float] = {}
    found: dict[int, set[str]] = {}
    total = 0.0
    for word in words:
        rows = db.execute("SELECT rowid FROM words WHERE words MATCH ?", (_any_of(with_synonyms(word)),))
        ids = [id for (id,) in rows]
        idf = math.log(1 + (fact_count - len(ids) + 0.5) / (len(ids) + 0.5))
        total += idf
        for id in ids:
            weights[id] = weights.get(id, 0.0) + idf
            found.setdefault(id, set()).add(word)
    return {id: _Match(weight / total, found[id]) for id, weight in weights.items()}


def _ranked(db: sqlite3.Connection, words: Sequence[str], ids: Set[int]) -> list[Fact]:
    """The facts with these ids that contain one of the words: best first by FTS5's BM25, then newest first."""
    query = (
        f"SELECT {_COLUMNS} FROM words JOIN memory ON memory.id = words.rowid"
        " WHERE words MATCH ? ORDER BY bm25(words), memory.id DESC"
    )
    return [Fact.of(row) for row in db.execute(query, (_any_of(words),)) if row[0] in ids]


def _any_of(words: Sequence[str]) -> str:
    """The FTS5 query for any of the words. Lower-case letters and digits need no quoting."""
    return " OR ".join(words)
