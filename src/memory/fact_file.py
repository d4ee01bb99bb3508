"""The SQLite file of long-term memory: its tables, its versions, and what happens if it is damaged or not ours."""

import sqlite3
from contextlib import closing
from pathlib import Path

from src.memory.private_files import CHECK_FOLDER, LOCK_TIMEOUT_S, explain
from src.memory.words import search_terms

# 1: the index held the text as it was typed. 2: in American spelling, but Chinese and Hindi could not be searched.
VERSION = 3

# The index refers to the table instead of copying its text. AUTOINCREMENT: the id of a deleted fact is never reused.
# same: the normalised text, by which a fact is stored only once. terms: the words to search by, in American spelling.
_TABLE = """
CREATE TABLE memory(
    id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, session TEXT NOT NULL, created REAL NOT NULL,
    same TEXT NOT NULL UNIQUE, terms TEXT NOT NULL DEFAULT ''
);
"""
_INDEX = f"""
CREATE VIRTUAL TABLE words USING fts5(terms, content='memory', content_rowid='id', 
    tokenize="porter unicode61 categories 'L* M* N* Co'");
INSERT INTO words(words) VALUES ('rebuild');
CREATE TRIGGER remembered AFTER INSERT ON memory BEGIN
    INSERT INTO words(rowid, terms) VALUES (new.id, new.terms);
END;
CREATE TRIGGER forgotten AFTER DELETE ON memory BEGIN
    INSERT INTO words(words, rowid, terms) VALUES ('delete', old.id, old.terms);
END;
PRAGMA user_version = {VERSION};
"""
_DROP_INDEX = "DROP TRIGGER remembered; DROP TRIGGER forgotten; DROP TABLE words;"
_SET_TERMS = "UPDATE memory SET terms = search_terms(text);"
_BEFORE_INDEX = {  # by the version of the file; 0: it is empty
    0: _TABLE,
    1: f"{_DROP_INDEX} ALTER TABLE memory ADD COLUMN terms TEXT NOT NULL DEFAULT ''; {_SET_TERMS}",
    2: f"{_DROP_INDEX} {_SET_TERMS}",
}


class DamagedFile(Exception):
    """The file is not a database, or not a complete one."""


def as_text(value: object) -> str:
    """A field of the file as text. Another program may have written any type."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, creating it if it is missing. Raises DamagedFile, ValueError or OSError."""
    try:
        path.touch(mode=0o600)
        db = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise OSError(f"{path}: cannot be opened ({error}); {CHECK_FOLDER}") from error
    try:
        db.text_factory = as_text  # by default, bytes that are not UTF-8 raise an error
        db.execute("PRAGMA secure_delete = ON")  # overwrite deleted facts
        _check(db, path)
        return db
    except sqlite3.OperationalError as error:
        db.close()
        if "fts5" in str(error):
            raise OSError(
                f"{path}: long-term memory needs SQLite's full-text index FTS5, and this Python's SQLite "
                f"({sqlite3.sqlite_version}) was built without it; use another build of Python"
            ) from error
        raise OSError(f"{path}: {explain(error)}") from error
    except sqlite3.DatabaseError as error:
        db.close()
        raise DamagedFile(str(error)) from error
    except BaseException:
        db.close()
        raise


def open_copy(path: Path) -> sqlite3.Connection:
    """The database of a file that cannot be written, copied into memory; an empty one if there is no file."""
    copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    copy.text_factory = as_text
    try:
        if path.is_file():
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as file:
                file.backup(copy)
        _check(copy, path)
        copy.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}; pass another --memory-dir") from error
    return copy


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables of an empty database. Raises for one that is damaged, newer, or another program's."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ValueError(f"{path}: written by a newer version of this program; use that one, or another --memory-dir")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables:
        raise ValueError(f"{path}: this is another program's database; pass another --memory-dir")
    db.create_function("search_terms", 1, lambda text: search_terms(as_text(text)), deterministic=True)
    if version < VERSION:
        db.executescript(f"BEGIN IMMEDIATE; {_BEFORE_INDEX[version]} {_INDEX} COMMIT;")
    (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise DamagedFile(" ".join(state.split()))
    db.execute("INSERT INTO words(words) VALUES ('integrity-check')")


def purge_deleted_words(db: sqlite3.Connection) -> None:
    """Merge the index: without this, the words of deleted facts stay in the file until the next merge."""
    db.execute("INSERT INTO words(words) VALUES ('optimize')")
