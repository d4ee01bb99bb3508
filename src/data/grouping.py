"""Join the records that belong together: the messages of a tree (OASST), and the labelled answers to a prompt (KTO)."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from src.data.chats import CHAT_KEYS, read_message
from src.data.fields import Fields, LeftOut, as_bool, as_number
from src.data.prompts import Message
from src.data.questions import ANSWER_KEYS, INPUT_KEYS, QUESTION_KEYS, SYSTEM_KEYS
from src.data.records import Located, Record

LABEL_KEYS = ("label", "kto_tag")


def best_path(fields: Fields) -> list[Message] | None:
    """Return the messages from the root of a tree to a leaf, or None if the record is not {"prompt": {..., "replies"}}.

    The path takes the reply with the lowest rank; without ranks, the one with the highest score. Of a user's replies,
    one with an answer comes first. Deleted messages are not taken. Raises LeftOut for a question without replies.
    """
    node = fields.peek("prompt")
    if not isinstance(node, dict) or "replies" not in node:
        return None
    fields.value("prompt")
    messages: list[Message] = []
    while node:
        inner = fields.inside(f"{fields.where}, message {len(messages) + 1} of the best path", node, "replies")
        messages.append(read_message(inner))
        replies = inner.value("replies")
        candidates = [reply for reply in replies or () if isinstance(reply, dict) and not reply.get("deleted")]
        node = min(candidates, key=_order, default=None)
    if len(messages) == 1:
        raise LeftOut("questions without an answer")
    return messages


def _order(reply: Record) -> tuple[float, float, bool]:
    rank, score = as_number(reply.get("rank")), as_number(reply.get("score"))
    return (math.inf if rank is None else rank, -(score or 0), not reply.get("replies"))


def join_trees(records: Sequence[Located]) -> tuple[list[Located], Counter[str]]:
    """Put messages with a "parent_id" below their parents. A tree's place in the file is that of its root.

    Returns the records, and the number of messages by the reason why they are in no tree: their parent is missing, or
    their id is taken. Other records stay as they are.
    """
    nodes: dict[str | int, Record] = {}
    joined: list[Located] = []
    first_messages: list[Located] = []
    for where, record in records:
        if not _is_message(record):
            joined.append((where, record))
        elif record["message_id"] not in nodes:
            nodes[record["message_id"]] = {**record, "replies": []}
            first_messages.append((where, record))
    n_repeated = len(records) - len(joined) - len(nodes)
    roots = []
    for where, record in first_messages:
        if not record["parent_id"]:
            roots.append(nodes[record["message_id"]])
            joined.append((where, {"prompt": roots[-1]}))
        elif record["parent_id"] in nodes:
            nodes[record["parent_id"]]["replies"].append(nodes[record["message_id"]])
    for node in roots:  # grows below, until all messages of the trees are in it
        roots += node["replies"]
    n_missing = len(nodes) - len(roots)
    counts = {"replies to a message that is missing": n_missing, "messages with the id of an earlier one": n_repeated}
    return joined, +Counter(counts)  # without the zeros


def _is_message(record: Record) -> bool:
    ids = (record.get("message_id"), record.get("parent_id", []))
    return ids[0] is not None and all(isinstance(id_, str | int | None) for id_ in ids)


def join_labelled_answers(records: Sequence[Located]) -> tuple[list[Located], Counter[str]]:
    """Pair each prompt's answers labelled true and false, in their order. A pair has the place of its good answer.

    Returns the records, and the number of answers without a counterpart. Other records stay as they are.
    """
    bad: defaultdict[str, list[Record]] = defaultdict(list)
    for _, record in records:
        if _label(record) is False:
            bad[_prompt_of(record)].append(record)
    joined: list[Located] = []
    n_alone = 0
    for where, record in records:
        label = _label(record)
        if label is None:
            joined.append((where, record))
        elif label and (counterparts := bad[_prompt_of(record)]):
            joined.append((where, _pair(record, counterparts.pop(0))))
        elif label:
            n_alone += 1
    n_alone += sum(map(len, bad.values()))
    return joined, Counter({"answers to a prompt that has none with the other label": n_alone} if n_alone else {})


def _label(record: Record) -> bool | None:
    """Whether a record holds a good or a bad answer; None if it holds no labelled answer."""
    values = [record.get(key) for key in LABEL_KEYS]
    labels = [bool(value) if value in (0, 1) else as_bool(value) for value in values]
    known = [label for label in labels if label is not None]
    return known[0] if known and _answer_key(record) else None


def _answer_key(record: Record) -> str:
    """The key of the answer, or of the chat that ends with it; "" if there is none."""
    chats = [key for key in CHAT_KEYS if isinstance(record.get(key), list) and record[key]]
    return next((key for key in (*chats, *ANSWER_KEYS) if key in record), "")


def _prompt_of(record: Record) -> str:
    earlier = record[key][:-1] if (key := _answer_key(record)) in CHAT_KEYS else None
    parts = [record.get(name) for name in (*SYSTEM_KEYS, *QUESTION_KEYS, *INPUT_KEYS, "history")]
    return json.dumps([earlier, *parts], default=str)


def _pair(good: Record, bad: Record) -> Record:
    chosen, rejected = _answer_key(good), _answer_key(bad)
    rest = {key: value for key, value in good.items() if key not in (chosen, *LABEL_KEYS)}
    return {**rest, "chosen": good[chosen], "rejected": bad[rejected]}
