"""Valid inputs, and random damage to bytes, plain values and command lines. Used by benchmarks.fuzz."""

import copy
import math
from collections.abc import Callable, MutableMapping, MutableSequence
from random import Random
from typing import Any

ODD_BYTES = [
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1b[31m", b"\r", b"\n", b"NaN", b"1e999", b"-0", b"\\ud800",
    b'"', b"{", b"[", b"]", b"}", b",", b"9" * 400, b"[" * 5000, b"\xed\xa0\x80", b"\x80\x04", b"PK\x03\x04",
    b"\x1f\x8b",
]  # fmt: skip
ODD_TEXTS = [
    "", " ", "\n\n", "\x00", "\x1b]0;title\x07", "\u202eabc", "\ud800", "\ufffd", "\u2028", "a\rb", "<|endoftext|>",
    "-", "### Response:", "--", "--=", "None", "nan", "1e400", "9" * 400, "0x10", "١٢", "x" * 1500, "🦜" * 40,
]  # fmt: skip
ODD_NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.1, -0.0, 1e308, math.nan, math.inf]
KEYS = [
    "role",
    "content",
    "from",
    "value",
    "input",
    "output",
    "system",
    "messages",
    "chosen",
    "rejected",
    "weight",
    "id",
]

# Valid inputs to damage.
TURN = [{"role": "user", "content": "Who is there?"}, {"role": "assistant", "content": "A friend."}]
HH = "\n\nHuman: Who is there?\n\nAssistant: "
INSTRUCTIONS: list[dict[str, Any]] = [
    {"instruction": "Name a colour.", "response": "Blue."},
    {"instruction": "Add.", "input": "1 and 2", "output": "3", "history": [["Hi", "Hello"]], "system": "Be brief."},
    {"instruction": "Who?", "context": "It was Ann.", "response": "Ann.", "category": "qa"},
    {"messages": [{"role": "system", "content": "Be brief."}, *TURN]},
    {
        "messages": [
            *TURN,
            {"role": "user", "content": [{"type": "text", "text": "And you?"}]},
            {**TURN[1], "weight": 0},
        ]
    },
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}], "id": "7"},
    {"prompt": "Once", "completion": " upon a time."},
    {"question": "2 + 2?", "answer": "4"},
    {"message_id": "a", "parent_id": None, "text": "Hi", "role": "prompter", "message_tree_id": "a", "rank": None},
]
PREFERENCES: list[dict[str, Any]] = [
    {"instruction": "Name a colour.", "input": "", "chosen": "Blue.", "rejected": "Seven."},
    {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "Seven."},
    {"prompt": TURN[:1], "chosen": TURN[1:], "rejected": [{"role": "assistant", "content": "Go."}]},
    {"chosen": TURN, "rejected": [TURN[0], {"role": "assistant", "content": "Go."}]},
    {"chosen": HH + "A friend.", "rejected": HH + "Go."},
    {
        "conversations": [{"from": "human", "value": "Hi"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"value": "b"},
    },
    {"question": "Who?", "chosen": "a", "rejected": "b", "score_chosen": 1.5},
]
TEXTS = [
    "Shall I compare thee to a summer's day?\nThou art more lovely.\n" * 5,
    "*** START OF THE PROJECT GUTENBERG EBOOK A ***\n\nA tale.\n\n*** END OF THE PROJECT GUTENBERG EBOOK A ***\nx",
    "One.\n<|endoftext|>\nTwo.\n",
    "naïve café, 日本語, 👩‍🚀\r\nline\r\n",
]
SENTENCES = ["My name is Ann.", "I live in Rome, and I like tea.", "What is my name?", "My password is lantern."]


def damaged(rng: Random, data: bytes) -> bytes:
    """The bytes with one to four small faults: a flipped bit, a cut, a repeated or an inserted part."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice([1, 2, 8, 64, 1000]))
        match rng.randrange(5):
            case 0 if start < len(data):
                data = data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
            case 1:
                data = data[:start]
            case 2:
                data = data[:start] + data[end:]
            case 3:
                data = data[:end] + data[start:end] + data[end:]
            case _:
                data = data[:start] + rng.choice(ODD_BYTES) + data[rng.choice([start, end]) :]
    return data


def odd_value(rng: Random) -> Any:
    """A value that a reader may not expect in its place."""
    match rng.randrange(6):
        case 0:
            return rng.choice([None, True, False, [], {}, [[]], {"": {}}, [None], ["a", 1]])
        case 1:
            return rng.choice(ODD_NUMBERS)
        case 2 if rng.random() < 0.1:
            return nested(rng.choice([3, 100, 400]))
        case _:
            return rng.choice(ODD_TEXTS)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def altered(rng: Random, value: Any, times: int) -> Any:
    """A copy of a plain value with up to `times` parts replaced, removed, repeated or renamed."""
    value = copy.deepcopy(value)
    for _ in range(times):
        part = value
        while isinstance(part, MutableMapping | MutableSequence) and part:
            key = rng.choice(list(part)) if isinstance(part, MutableMapping) else rng.randrange(len(part))
            if not isinstance(part[key], MutableMapping | MutableSequence) or rng.random() < 0.2:
                _alter(rng, part, key)
                break
            part = part[key]
    return value


def _alter(rng: Random, part: Any, key: Any) -> None:
    match rng.randrange(6):
        case 0:
            del part[key]
        case 1 if isinstance(part, MutableMapping):
            part[rng.choice(KEYS + ODD_TEXTS)] = part.pop(key)
        case 1:
            part.insert(key, part[key])
        case 2 if isinstance(part, MutableMapping):
            part[rng.choice(KEYS)] = odd_value(rng)
        case 3 if isinstance(part[key], str):
            part[key] = spliced(rng, part[key])
        case 4 if isinstance(part[key], int | float):
            part[key] = rng.choice([part[key] + 1, -part[key], part[key] * 1000, str(part[key])])
        case _:
            part[key] = odd_value(rng)


def spliced(rng: Random, text: str) -> str:
    """The text with an odd one inserted at a random place."""
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(ODD_TEXTS) + text[at:]


def command_line(rng: Random, flags: list[str]) -> list[str]:
    """Up to five flags with likely, odd or no values."""
    likely: list[Callable[[], str]] = [
        lambda: str(rng.randrange(-2, 100)),
        lambda: str(rng.random()),
        lambda: rng.choice(ODD_TEXTS),
        lambda: str(rng.choice(ODD_NUMBERS[:7])),
        lambda: rng.choice(["none", "auto", "cpu", "micro", "adamw", "a/b", "~", "~/x", "/", "."]),
    ]
    words: list[str] = []
    for _ in range(rng.randint(0, 5)):
        flag, value = rng.choice(flags), rng.choice(likely)()
        if rng.random() < 0.1:
            flag = spliced(rng, flag)
        words += rng.choice([[flag, value], [flag, value], [f"{flag}={value}"], [flag], [value]])
    # A command line holds no null character, and a byte that is not UTF-8 in place of any surrogate.
    return [word.replace("\0", "").replace("\ud800", "\udcff") for word in words]
