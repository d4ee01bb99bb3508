"""Likely mistakes in a text are noted or refused, and ordinary texts in any language get no note."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from src.data.gutenberg import licence_note
from src.data.inspection import notes_on, notes_on_words
from src.tokenizer import word_encoding_of

PROSE = "".join(
    f"The ferry left the pier at {hour}, and the wind came from the east.\nNobody waved; it was too cold.\n"
    for hour in range(200)
)
ORDINARY = {
    "prose": PROSE,
    "one line": "Short.",
    "German": "Er aß. „Spaß“, sagte sie, „daß…“ – Straße\u2019s GROẞ ÄÖÜ\n" * 40,
    "French": "« Où est-il\xa0? » Ça, l’été\xa0: À Âge, Ê, É’\xa0», naïve\xa0!\n" * 40,
    "Portuguese": "“NÃO, IRMÔ – ‘AMANHÃ’, MAÇÃ… coração, Ângela.\n" * 40,
    "Icelandic": "Ðað er gott. ÞÚ OG ÉG, Ñandú.\n" * 40,
    "Russian": "Он сказал: «Нет», и вышел.\n" * 40,
    "Japanese": "吾輩は猫である。名前はまだ無い。\n" * 40,
    "form feeds and tabs": "one\ttwo\f\n\x0bthree\x85\n" * 40,
    "verse with commas": "".join(f"{'Go, ' * (i % 4)}said {i}\n" for i in range(100)),
    "repeated line": "To be, or not to be\n" * 100,
    "braces": '{ "a" is not a key } and [ "b" ]\n' * 40,
    "Python": "def f(x, y):\n    return {'a': x, 'b': [y]}\n\n\n" * 40,
    "mathematics": "if a < b and b > c then x <- y\n" * 40,
}


def notes(text: str, *, documents: bool = False) -> list[str]:
    found = notes_on(text, Path("my text.txt"), documents=documents)
    assert all("\n" not in note and note.isprintable() for note in found)
    return found


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY.keys())
def test_an_ordinary_text_has_no_note(text: str) -> None:
    assert notes(text) == []


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("line\nca\ufffd\n", "U+FFFD, the replacement character, once (11.11% of the text), first in line 2"),
        (PROSE + "CafÃ© dÃ©jÃ  vu", "'Ã©' and the like 2 times, first in line 401: UTF-8 that was read as "),
        ("It is â€œmineâ€¦ he said", "'â€' and the like 2 times"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚ Ð´Ñ€ÑƒÐ³", "'ÐŸ' and the like 8 times"),
        ("РџСЂРёРІРµС‚ РґСЂСѓРі, РєР°Рє", "'Рµ' and the like 2 times"),
        ("Good ðŸ˜€", "'ðŸ' and the like once"),
        ("a \x1b[31mred\x1b[0m word", "escape sequences of a terminal 2 times"),
        ("a\nb\x08\x7f", "control characters such as U+0008 2 times, first in line 2"),
        ("the book\x92s cover", "control characters such as U+0092 once"),
        ("one\n\ufefftwo\n", "a byte order mark inside the text once, first in line 2: files were joined"),
        ("one</s>two</s>", "</s> 2 times: a special token of other models"),
        ("<|user|> one <|end|>", "<|user|> once, <|end|> once: a special token of other models"),
        ("<start_of_turn>user", "<start_of_turn> once: a special token"),
        ("one [MASK] two", "[MASK] once: a special token"),
        ("one<|endoftext|>two", "<|endoftext|> once, read as ordinary characters; --documents endoftext makes it"),
        ("a,b,c\n" + "".join(f'"x, {i}",,{i}\n' for i in range(40)), "it looks like a table of 3 columns"),
        ("".join(f"key {i}\tvalue\n" for i in range(40)), "it looks like a table of 2 columns separated by tabs"),
        ("".join(f"key {i}|value|x\n" for i in range(40)), "it looks like a table of 3 columns"),
        (PROSE.replace("e", "&eacute;"), "it looks like HTML"),
        ("caf\\u00e9 " * 20, r"letters are written as \u00e9, with a backslash"),
        ("<!DOCTYPE html><title>x</title>", "it looks like HTML"),
        (PROSE.replace("\n", "</p>\n"), "it looks like HTML"),
        (PROSE.replace(" the", "&nbsp;the"), "it looks like HTML"),
        (PROSE.replace("\n", "\\n"), "line breaks are written as \\n"),
        (base64.encodebytes(PROSE.encode()).decode(), "many lines are long and have no space"),
        ("short\n" + "word " * 30_000, "line 2 has 150,000 characters"),
        ("a\n" + "\n" * 20_000 + "b", "over 5,000 blanks or empty lines in a row"),
        ('{"level": 1, "event": "start"}\n' * 9, "it looks like JSON, which is learned with its brackets"),
        ('["one", "two"]', "it looks like JSON"),
        ('[{"level": 1},\n {"level": 2}]', "it looks like JSON"),
    ],
)  # fmt: skip
def test_likely_mistakes_are_one_note(text: str, start: str) -> None:
    [note] = notes(text)
    assert note.startswith(start)


def test_a_separator_of_documents_is_meant() -> None:
    assert notes("one<|endoftext|>two", documents=True) == []


@pytest.mark.parametrize(
    ("record", "command"),
    [
        ({"instruction": "q", "output": "a"}, "python instruction_tune.py --data 'my text.txt'"),
        ({"messages": [{"role": "user", "content": "q"}]}, "python instruction_tune.py"),
        ({"conversations": []}, "python instruction_tune.py"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "python dpo_train.py --data 'my text.txt'"),
        ({"id": 1, "text": "a long text"}, "jq -c '..|objects|select(.text)' 'my text.txt' > 'my text.jsonl'"),
    ],
)
@pytest.mark.parametrize("form", ["lines", "list", "object", "cut off"])
def test_records_are_refused_with_the_command_for_them(record: dict, command: str, form: str) -> None:
    text = {
        "lines": (json.dumps(record) + "\n") * 5,
        "list": json.dumps([record] * 3, indent=2),
        "object": json.dumps({"version": 1, "data": [record]}),
        "cut off": (json.dumps(record) + "\n") * 25 + json.dumps(record)[:9],
    }[form]
    with pytest.raises(ValueError, match="my text.txt holds JSON records") as refused:
        notes(text)
    assert command in str(refused.value)


def test_a_licence_that_is_left_in_a_text_is_noted() -> None:
    assert licence_note("I read it at Project Gutenberg.\n") == []
    [note] = licence_note("Project Gutenberg's licence. " * 60)
    assert note.startswith("Project Gutenberg is still named 60 times")


def test_text_without_spaces_between_words_is_noted() -> None:
    def found(text: str) -> list[str]:
        encoding = word_encoding_of([text])
        ids = np.array(encoding.encode_ordinary(text))
        return notes_on_words(encoding, ids[:-400], ids[-400:])

    assert found(PROSE) == []
    [note] = found("".join(f"{chr(0x4E00 + i)}船は朝に桟橋を離れて東の風がとても冷たかった。\n" for i in range(900)))
    assert note.startswith("words are 23.0 letters long on average, and 100% of the validation words are not in the")
