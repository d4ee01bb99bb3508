"""Facts that a person told, kept across conversations in one SQLite file and found again by the words of a question.

SQLite's full-text index FTS5 finds and ranks them, with English stems: no other library, no download, no vectors.
"""

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from src.common.messages import without_surrogates
from src.memory.private_files import CHECK_FOLDER, LOCK_WAIT_S, locked, quarantine, reason
from src.memory.told_facts import PERSONAL, STOP_WORDS, extract_facts, words_of

VERSION = 1

# Of the weight of a question's words, how much a fact must have in common with it to be recalled: one that speaks of
# the person ("my", "we"), and any other. Chosen with benchmarks/memory_recall.py.
SHARE_IF_PERSONAL, SHARE_OTHERWISE = 0.25, 0.5
# A memory of a few facts weighs words as one of so many would: in it, every word that it has would seem a common one.
_LEAST_COUNT = 100
_MOST_WORDS = 100  # of a question that are looked up

# The index holds no text of its own. Secure deletion overwrites what is forgotten; numbers are never given twice.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE memory(
    id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, session TEXT NOT NULL, created REAL NOT NULL,
    same TEXT NOT NULL UNIQUE
);
CREATE VIRTUAL TABLE words USING fts5(text, content='memory', content_rowid='id', tokenize='porter unicode61');
CREATE TRIGGER remembered AFTER INSERT ON memory BEGIN
    INSERT INTO words(rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER forgotten AFTER DELETE ON memory BEGIN
    INSERT INTO words(words, rowid, text) VALUES ('delete', old.id, old.text);
END;
PRAGMA user_version = {VERSION};
COMMIT;
"""
_COLUMNS = "memory.id, memory.text, memory.session, memory.created"


@dataclass(frozen=True)
class Memory:
    """A fact as it was told, the session that it was told in, and when (Unix time)."""

    id: int
    text: str
    session: str
    created: float


@dataclass(frozen=True)
class Recollection:
    """A memory and how well it fits a question: the share, 0 to 1, that it has of the weight of its words."""

    memory: Memory
    score: float


class LongTermMemory:
    """The facts in one SQLite file, which several programs and threads may use at once.

    A damaged file is renamed, which `notify` is told in one line, and a new one begun. Raises ValueError for the file
    of a newer version or of another program. Every method raises OSError, in one line, where the file cannot be used.
    """

    def __init__(self, path: Path, notify: Callable[[str], None]) -> None:
        self.path = Path(path)
        self._one_thread = threading.Lock()
        with locked(self.path.parent):
            try:
                self._db = _opened(self.path)
            except _Damaged as error:
                aside = quarantine(self.path)
                notify(f"{self.path}: damaged ({error}); it is kept as {aside.name}, and a new memory is begun")
                self._db = _opened(self.path)

    def remember(self, text: str, session: str) -> Memory | None:
        """Keep what a message tells about the person's world; None where that is nothing, or known already."""
        fact = extract_facts(without_surrogates(text))
        if not fact:
            return None
        row = (fact, without_surrogates(session), time.time())
        same = " ".join(fact.casefold().split()).rstrip(".!")
        with self._using() as db:
            insert = "INSERT OR IGNORE INTO memory(text, session, created, same) VALUES (?, ?, ?, ?)"
            done = db.execute(insert, (*row, same))
            return Memory(done.lastrowid or 0, *row) if done.rowcount else None

    def recall(self, query: str, top: int = 3) -> list[Recollection]:
        """At most `top` facts that bear on the question, best first, of equals the latest first; often none.

        A fact must hold a quarter of the weight of the question's words, or half where the question does not speak of
        the person; a word weighs the more, the fewer facts have it (BM25's inverse document frequency).
        """
        asked = words_of(without_surrogates(query))
        words = [word for word in asked if word not in STOP_WORDS][:_MOST_WORDS]
        personal = [word for word in asked if word in PERSONAL]
        if not words:
            return []
        needed = SHARE_IF_PERSONAL if personal else SHARE_OTHERWISE
        with self._using() as db:
            db.execute("BEGIN")  # all of it reads one state of the file
            shares = {id: share for id, share in _shares(db, words).items() if share >= needed}
            if not shares:
                return []
            ranked = (
                f"SELECT {_COLUMNS} FROM words JOIN memory ON memory.id = words.rowid"
                " WHERE words MATCH ? ORDER BY bm25(words), memory.id DESC"
            )
            rows = db.execute(ranked, (_any_of(words + personal),))
            found = [Recollection(Memory(*row), shares[row[0]]) for row in rows if row[0] in shares]
        return sorted(found, key=lambda each: each.score, reverse=True)[:top]  # in FTS5's order where shares are equal

    def all(self) -> list[Memory]:
        """Every fact, the oldest first."""
        with self._using() as db:
            return [Memory(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM memory ORDER BY id")]

    def forget(self, id: int) -> Memory:
        """Remove a fact and its traces in the index. Raises ValueError naming the numbers there are."""
        with self._using() as db:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute(f"SELECT {_COLUMNS} FROM memory WHERE id = ?", (str(id),)).fetchone()
            if row is None:
                there = [str(id) for (id,) in db.execute("SELECT id FROM memory ORDER BY id")]
                listed = ", ".join(there[-20:]) or "none"
                more = f" and {len(there) - 20} older ones" if len(there) > 20 else ""
                raise ValueError(f"memory {id}: there is none of that number; there are: {listed}{more}")
            db.execute("DELETE FROM memory WHERE id = ?", (row[0],))
            db.execute("INSERT INTO words(words) VALUES ('optimize')")  # else the words stay until the index is merged
            db.execute("COMMIT")
            return Memory(*row)

    def close(self) -> None:
        with self._one_thread:
            self._db.close()

    @contextmanager
    def _using(self) -> Generator[sqlite3.Connection, None, None]:
        """The database for one thread at a time; what was begun in it and not committed is undone."""
        with self._one_thread:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise OSError(f"{self.path}: {reason(error)}") from error
            finally:
                with suppress(sqlite3.Error):
                    self._db.rollback()


class _Damaged(Exception):
    """A file that is no database, or not a whole one."""


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to the database, made where it is missing. Raises _Damaged, ValueError or OSError."""
    try:
        path.touch(mode=0o600)
        db = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise OSError(f"{path}: cannot be opened ({error}); {CHECK_FOLDER}") from error
    try:
        db.execute("PRAGMA secure_delete = ON")
        _check(db, path)
        return db
    except sqlite3.OperationalError as error:
        db.close()
        if "fts5" in str(error):
            raise OSError(
                f"{path}: this Python's SQLite ({sqlite3.sqlite_version}) was built without its full-text index FTS5, "
                "which long-term memory needs; use another build of Python"
            ) from error
        raise OSError(f"{path}: {reason(error)}") from error
    except sqlite3.DatabaseError as error:
        db.close()
        raise _Damaged(str(error)) from error
    except BaseException:
        db.close()
        raise


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables of an empty database; refuse one that is damaged, newer, or another program's."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ValueError(f"{path}: written by a newer version of this program; use that one, or another --memory-dir")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables:
        raise ValueError(f"{path}: the database of another program; pass another --memory-dir")
    if version == 0:
        db.executescript(_SCHEMA)
    (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise _Damaged(" ".join(state.split()))
    db.execute("INSERT INTO words(words) VALUES ('integrity-check')")


def _shares(db: sqlite3.Connection, words: Sequence[str]) -> dict[int, float]:
    """Of every fact that has one of the words or more: which share of the weight of all the words it has."""
    (count,) = db.execute("SELECT max(count(*), ?) FROM memory", (_LEAST_COUNT,)).fetchone()
    held: dict[int, float] = {}
    total = 0.0
    for word in words:
        ids = [id for (id,) in db.execute("SELECT rowid FROM words WHERE words MATCH ?", (_any_of([word]),))]
        weight = math.log(1 + (count - len(ids) + 0.5) / (len(ids) + 0.5))
        total += weight
        for id in ids:
            held[id] = held.get(id, 0.0) + weight
    return {id: weight / total for id, weight in held.items()}


def _any_of(words: Sequence[str]) -> str:
    """The FTS5 expression for any of the words: letters and digits in lower case are no part of its syntax."""
    return " OR ".join(words)
