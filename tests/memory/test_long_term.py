"""Long-term memory: which facts are stored, what a question recalls, and that no data is lost or left behind."""

import json
import os
import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from src.memory import fact_file
from src.memory.facts import extract_facts
from src.memory.long_term import LongTermMemory
from src.memory.private_files import why_not_writable

ROOT = Path(__file__).resolve().parents[2]
FACTS = ["My cat is called Miso.", "My wife's name is Ingrid.", "I work in Lisbon.", "Our car is a red Volvo."]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions" / "memory.sqlite3"


@pytest.fixture
def memory(path: Path, notes: list[str]) -> Iterator[LongTermMemory]:
    opened = LongTermMemory(path, notes.append)
    for fact in FACTS:
        opened.store(fact, "first")
    yield opened
    opened.close()


def recalled(memory: LongTermMemory, question: str) -> list[str]:
    return [each.fact.text for each in memory.recall(question)]


# --- recall


def test_a_rephrased_question_recalls_its_fact_first(memory: LongTermMemory) -> None:
    assert recalled(memory, "What's the name of my cat?")[0] == FACTS[0]
    assert recalled(memory, "which town am I WORKING in") == [FACTS[2]]
    assert recalled(memory, "What colour is our car?") == [FACTS[3]]


@pytest.mark.parametrize("question", ["Who wrote Hamlet?", "What is it?", "Why is a tomato red?", "", "?!", "Tell me."])
def test_unrelated_questions_recall_nothing(memory: LongTermMemory, question: str) -> None:
    assert memory.recall(question) == []


def test_personal_questions_have_a_lower_threshold(memory: LongTermMemory) -> None:
    assert recalled(memory, "Which red wine suits fish?") == []
    assert recalled(memory, "Which red wine suits us?") == [FACTS[3]]


def test_recall_works_with_a_single_fact(path: Path) -> None:
    alone = LongTermMemory(path, print)
    alone.store(FACTS[0], "a")
    assert recalled(alone, "Which animal is my cat, and how old?") == [FACTS[0]]
    assert recalled(alone, "How many lives does a cat have, as people believe?") == []
    alone.close()


def test_recalled_facts_are_sorted_by_score_then_newest(memory: LongTermMemory) -> None:
    memory.store("My cat is called Mina.", "second")
    memory.store("My cat is very old and my neighbour feeds it.", "second")
    found = memory.recall("How old is my cat?")
    assert [each.fact.id for each in found] == [6, 5, 1]
    assert found[0].score == pytest.approx(1.0) and 0.25 <= found[1].score == found[2].score < 1
    assert len(memory.recall("How old is my cat?", top=1)) == 1


@pytest.mark.parametrize(
    "query",
    [
        'cat" OR "',
        "NEAR(cat)",
        "cat*",
        "text:cat",
        "-cat ^cat",
        "cat AND NOT (",
        "cat\0",
        "\ud800cat",
        "{{$cat}}",
        "''cat",
    ],
)
def test_fts5_syntax_in_a_question_is_plain_text(memory: LongTermMemory, query: str) -> None:
    assert FACTS[0] in recalled(memory, f"my {query}")


def test_recall_accepts_questions_of_any_length(memory: LongTermMemory) -> None:
    assert memory.recall("x" * 100_000) == []
    text = "My list: " + " ".join(f"w{n}" for n in range(40))
    memory.store(text, "a")
    assert recalled(memory, text + " ".join(f"v{n}" for n in range(20_000))) == [text]


def test_letters_of_every_script_are_searchable(memory: LongTermMemory) -> None:
    for first in range(0x20, 0x30000, 64):
        memory.recall(" ".join(map(chr, range(first, first + 64))))
    memory.store("Моя кошка: my cat is МИСО 猫.", "a")
    assert recalled(memory, "my МИСО?") == ["Моя кошка: my cat is МИСО 猫."]


@pytest.mark.parametrize(
    ("fact", "question", "other"),
    [
        ("我的猫叫小白。", "我的猫叫什么?", "北京有多大?"),
        ("私の猫の名前はタマです。", "私の猫の名前は何ですか?", "東京はどこですか?"),
        ("제 고양이 이름은 미소입니다.", "제 고양이 이름이 뭐예요?", "서울은 어디예요?"),
        ("แมวของฉันชื่อมิโซะ", "แมวของฉันชื่ออะไร", "กรุงเทพอยู่ที่ไหน"),
        ("मेरी बिल्ली का नाम मीसो है।", "मेरी बिल्ली का नाम क्या है?", "दिल्ली कितनी बड़ी है?"),
        ("اسم قطتي ميسو.", "ما اسم قطتي؟", "أين تقع القاهرة؟"),
        ("Мою кошку зовут Мисо.", "Как зовут мою кошку?", "Где находится Москва?"),
    ],
)
def test_facts_in_other_scripts_are_recalled(memory: LongTermMemory, fact: str, question: str, other: str) -> None:
    memory.store(fact, "a")
    assert recalled(memory, question) == [fact] and recalled(memory, other) == []


def test_recall_quality_matches_the_benchmark(path: Path) -> None:
    groups = json.loads((ROOT / "benchmarks" / "memory_facts.json").read_text(encoding="utf-8"))
    pairs = [pair for name in ("development", "held_out") for pair in groups[name]["facts"]]
    memory = LongTermMemory(path, print)
    facts = [fact for pair in pairs for fact in memory.remember(pair["fact"], "a")]
    assert len(set(facts)) == len(pairs) == 88
    found = [[each.fact for each in memory.recall(pair["question"])] for pair in pairs]
    assert sum(fact in memories for fact, memories in zip(facts, found, strict=True)) >= 75
    unrelated = groups["development"]["unrelated"] + groups["held_out"]["unrelated"]
    assert len(unrelated) == 60 and sum(bool(memory.recall(question)) for question in unrelated) <= 2
    memory.close()


# --- storing


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("My cat is called Miso.", "My cat is called Miso."),
        ("Hello! I live in St. Gallen. Is it big?", "I live in St. Gallen."),
        ("Remember that the rent is 940 euros.", "The rent is 940 euros."),
        ("please remember: the key is under the pot", "The key is under the pot"),
        ("Don't forget my flight is on Monday!", "My flight is on Monday!"),
        ("Remember to buy milk.", "Remember to buy milk."),
        ("Actually, my cat is called Momo.", "My cat is called Momo."),
        ("My name is\x1b[31m Kim.", "My name is [31m Kim."),
        ("Remember that my PIN is 1234.", ""),
        ("What is my name?", ""),
        ("where do I live", ""),
        ("Write me a poem about my cat.", ""),
        ("I don't understand your answer.", ""),
        ("The capital of France is Paris.", ""),
        ("Remember: this", ""),
        ("My cat is old?", ""),
        ("", ""),
        ("I " + " ".join(f"w{n}" for n in range(60)) + ".", ""),
        ("I ran. " * 1000, ""),
    ],
)
def test_only_statements_about_the_user_are_facts(text: str, facts: str) -> None:
    assert extract_facts(text) == ([facts] if facts else [])


def test_a_fact_is_stored_once(memory: LongTermMemory) -> None:
    stored = memory.store("I play the cello.", "a")
    assert stored is not None and (stored.id, stored.session, stored.text) == (5, "a", "I play the cello.")
    assert memory.remember("I play  the CELLO", "b") == []
    assert memory.remember("What do I play?", "b") == []
    assert memory.all()[-1] == stored and len(memory.all()) == 5


def test_lone_surrogates_are_replaced(memory: LongTermMemory) -> None:
    stored = memory.store("My name is \ud800.", "\ud800")
    assert stored is not None and stored.text == "My name is \N{REPLACEMENT CHARACTER}." and memory.all()[-1] == stored


# --- forgetting


def test_a_deleted_fact_leaves_no_trace_on_disk(memory: LongTermMemory, path: Path) -> None:
    secret = memory.store("Our safe opens with 77 13 Quixote.", "a")
    assert secret is not None and b"quixot" in path.read_bytes().lower()
    assert memory.forget(secret.id) == secret
    assert memory.recall("What opens our safe?") == [] and secret not in memory.all()
    assert b"quixot" not in b"".join(file.read_bytes() for file in path.parent.iterdir()).lower()
    again = memory.store("I ski.", "a")
    assert again is not None and again.id == secret.id + 1  # numbers are not reused


@pytest.mark.parametrize("id", [0, 99, -1, 10**30])
def test_an_unknown_fact_number_lists_the_existing_ones(memory: LongTermMemory, id: int) -> None:
    with pytest.raises(ValueError, match=f"no fact {id}; the numbers are: 1, 2, 3, 4$"):
        memory.forget(id)


# --- the file


def test_facts_survive_a_restart(memory: LongTermMemory, path: Path) -> None:
    before = memory.all()
    memory.close()
    again = LongTermMemory(path, print)
    assert again.all() == before and recalled(again, "What is my cat called?") == [FACTS[0]]
    again.close()
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ["no database", "cut off", "overwritten", "index"])
def test_a_damaged_file_is_renamed_and_replaced(
    memory: LongTermMemory, path: Path, notes: list[str], damage: str
) -> None:
    memory.close()
    whole = path.read_bytes()
    noise = random.Random(0).randbytes(5000)
    contents = {"no database": noise, "cut off": whole[:9000], "overwritten": whole[:6000] + noise + whole[11000:]}
    path.write_bytes(contents.get(damage, whole))
    if damage == "index":
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DELETE FROM words_data WHERE id > 10")
    damaged = path.read_bytes()
    new = LongTermMemory(path, notes.append)
    renamed = path.with_name("memory.damaged-1.sqlite3")
    assert new.all() == [] and renamed.read_bytes() == damaged
    assert len(notes) == 1 and "\n" not in notes[0]
    assert "memory.sqlite3: damaged" in notes[0] and f"renamed to {renamed.name}" in notes[0]
    assert new.store("I ski.", "a") and recalled(new, "Do I ski?") == ["I ski."]
    new.close()


@pytest.mark.parametrize("created", ["'yesterday'", "NULL", "1e308", "9e999", "-1", "x'ff00'", str(2**63 - 1)])
@pytest.mark.parametrize("text", ["'I ski in \x1b[2JOslo.'", "CAST(x'4920736b6920ff' AS TEXT)", "x'4920736b6920ff'"])
def test_foreign_fields_are_read_as_far_as_possible(path: Path, created: str, text: str) -> None:
    LongTermMemory(path, print).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'created REAL NOT NULL', 'created')")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"INSERT INTO memory(text, session, created, same) VALUES ({text}, x'ff', {created}, 'a')")
    memory = LongTermMemory(path, pytest.fail)
    (fact,) = memory.all()
    assert fact.text.startswith("I ski ") and fact.session == "\N{REPLACEMENT CHARACTER}" and fact.created is None
    assert memory.forget(1) == fact
    memory.close()


def test_a_newer_or_foreign_file_is_refused_and_unchanged(path: Path, notes: list[str]) -> None:
    path.parent.mkdir()
    for statement, reason in (("PRAGMA user_version = 99", "newer version"), ("CREATE TABLE t(x)", "another program")):
        path.unlink(missing_ok=True)
        db = sqlite3.connect(path)
        db.execute(statement)
        db.close()
        before = path.read_bytes()
        with pytest.raises(ValueError, match=reason):
            LongTermMemory(path, notes.append)
        assert path.read_bytes() == before and notes == []


def test_sqlite_without_fts5_is_a_one_line_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fact_file._BEFORE_INDEX, 0, "CREATE VIRTUAL TABLE words USING fts5_missing(text);")
    with pytest.raises(OSError, match="full-text index FTS5.*built without it; use another build of Python"):
        LongTermMemory(path, print)


def test_a_full_disk_is_a_one_line_error_and_loses_nothing(memory: LongTermMemory) -> None:
    memory._db.execute("PRAGMA max_page_count = 1").fetchone()
    with pytest.raises(OSError, match="full; check its free space") as error:
        for n in range(2000):
            memory.store(f"My house has {n} rooms and {n + 1} doors.", "a")
    assert "\n" not in str(error.value) and recalled(memory, "What is my cat called?") == [FACTS[0]]


def test_a_folder_in_place_of_the_file_is_a_one_line_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="memory.sqlite3: .* --memory-dir"):
        LongTermMemory(path, print)


def test_concurrent_processes_and_threads_lose_nothing(memory: LongTermMemory, path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from src.memory.long_term import *\n"
        "memory = LongTermMemory(Path(sys.argv[1]), print)\n"
        "for n in range(30):\n"
        "    assert memory.store(f'My friend {sys.argv[2]}{n} sings.', 's')\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), who], cwd=ROOT) for who in "AB"]

    def remember_and_recall(who: str) -> None:
        for n in range(30):
            assert memory.store(f"My friend {who}{n} sings.", "s")
            for _ in range(10):
                assert recalled(memory, f"Who is my friend {who}{n}?")

    with ThreadPoolExecutor() as threads:
        list(threads.map(remember_and_recall, "CD"))
    assert [process.wait() for process in processes] == [0, 0]
    texts = {each.text for each in memory.all()}
    assert texts == {f"My friend {who}{n} sings." for who in "ABCD" for n in range(30)} | set(FACTS)
    assert recalled(memory, "Who is my friend B29?")[0] == "My friend B29 sings."


OLD_VERSIONS = {
    1: ("", "text"),
    2: (", terms TEXT NOT NULL DEFAULT ''", "terms"),
}


@pytest.mark.parametrize("version", OLD_VERSIONS)
def test_a_file_of_an_older_version_is_converted(path: Path, version: int) -> None:
    column, indexed = OLD_VERSIONS[version]
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"""
            CREATE TABLE memory(id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, session TEXT NOT NULL,
                created REAL NOT NULL, same TEXT NOT NULL UNIQUE{column});
            CREATE VIRTUAL TABLE words USING fts5({indexed}, content='memory', content_rowid='id',
                tokenize='porter unicode61');
            CREATE TRIGGER remembered AFTER INSERT ON memory BEGIN
                INSERT INTO words(rowid, {indexed}) VALUES (new.id, new.{indexed});
            END;
            CREATE TRIGGER forgotten AFTER DELETE ON memory BEGIN
                INSERT INTO words(words, rowid, {indexed}) VALUES ('delete', old.id, old.{indexed});
            END;
            INSERT INTO memory(text, session, created, same) VALUES
                ('My favourite colour is grey.', 'a', 1.0, 'grey'), ('我的猫叫小白。', 'a', 1.0, 'cat');
            PRAGMA user_version = {version};
        """)
    reader = LongTermMemory(path, pytest.fail, can_write=False)
    assert recalled(reader, "What is my favorite color?") == ["My favourite colour is grey."]
    reader.close()
    for _ in range(2):  # converted, then opened as it is
        memory = LongTermMemory(path, pytest.fail)
        assert recalled(memory, "What is my favorite color?") == ["My favourite colour is grey."]
        assert recalled(memory, "我的猫叫什么?") == ["我的猫叫小白。"]
        memory.close()


def test_facts_of_a_folder_that_cannot_be_written_are_read(memory: LongTermMemory, path: Path) -> None:
    before = path.read_bytes()
    reader = LongTermMemory(path, pytest.fail, can_write=False)
    assert reader.all() == memory.all() and recalled(reader, "What is my cat called?") == [FACTS[0]]
    for change in (lambda: reader.store("I ski.", "a"), lambda: reader.forget(1)):
        with pytest.raises(OSError, match="readonly"):
            change()
    reader.close()
    assert path.read_bytes() == before
    nothing = LongTermMemory(path.with_name("none.sqlite3"), pytest.fail, can_write=False)
    assert nothing.all() == [] and nothing.recall("Where do I live?") == [] and not nothing.path.exists()
    nothing.close()


def test_why_a_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert why_not_writable(tmp_path / "new") == "" and (tmp_path / "new").is_dir()
    assert why_not_writable(tmp_path / "file" / "new") == "Not a directory"
