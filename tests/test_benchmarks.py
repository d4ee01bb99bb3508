"""Parts of the benchmarks that do not measure: flags, embeddings, and the search for faults in small."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from benchmarks.fuzz import attempt, choose
from benchmarks.fuzz_readers import READERS, Readers
from benchmarks.kills import equal
from benchmarks.memory_recall import mean_pooled
from benchmarks.processes import Flags
from benchmarks.scale import rows
from benchmarks.tokenize_text import documents, write_text
from src.checkpoint import LoadedModel
from src.cli import parse
from src.model.gpt import GPTModel
from src.tokenizer import build_word_encoding
from tests.repository import ROOT

WITH_ROUNDS = ("byte_pairs", "decode_modes", "decode_speed", "draft_tokens", "processes", "scaling", "sk_startup",
               "token_cache", "training_speed", "tuning_speed", "word_tokenizer")  # fmt: skip


@pytest.mark.parametrize("name", WITH_ROUNDS)
def test_rounds_must_be_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match="^--rounds must be at least 1, got 0$"):
        import_module(f"benchmarks.{name}").main(["--rounds", "0"])


@pytest.mark.parametrize("name", ["single", "ddp", "fsdp"])
def test_a_worker_of_the_processes_is_one(name: str) -> None:
    """A worker that took itself for the benchmark would start workers without end."""
    flags, _ = parse(Flags, ["--worker", name], "")
    assert flags.worker == name


def test_the_table_of_scale_is_what_the_formulas_give() -> None:
    page = (ROOT / "benchmarks" / "scale.md").read_text(encoding="utf-8")
    assert "\n".join(rows()) in page


@pytest.mark.parametrize("layer", ["embeddings", "hidden"])
def test_mean_pooling_uses_the_tokenizer_of_the_model(layer: str, tmp_path: Path) -> None:
    (tmp_path / "verse.txt").write_text("Shall I compare thee to a summer's day?", encoding="utf-8")
    encoding = build_word_encoding(tmp_path / "verse.txt")
    size = {"context_length": 8, "d_model": 8, "n_heads": 2, "n_layers": 1}
    model = GPTModel({"vocab_size": encoding.n_vocab, **size}).eval()
    pooled = mean_pooled(LoadedModel(model, {}, encoding, tmp_path, ""), layer)(["summer day", "compare"])
    ids = torch.tensor([encoding.encode_ordinary("compare")])
    with torch.no_grad():
        states = model.wte(ids) if layer == "embeddings" else model.hidden_states(ids)
    torch.testing.assert_close(pooled[1:], torch.nn.functional.normalize(states.mean(dim=1)))


def test_random_inputs_are_accepted_or_refused_in_one_line(tmp_path: Path) -> None:
    readers = Readers(tmp_path)
    outcomes = {}
    for number in range(120):
        name, rng = choose(number, list(READERS))
        outcomes[number] = attempt(readers, name, rng)
    assert [(number, problem) for number, (_, problem) in outcomes.items() if problem] == []
    assert {outcome for outcome, _ in outcomes.values()} == {"accepted", "refused"}


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (KeyError("a"), "KeyError at "),
        (RecursionError("deep"), "RecursionError at "),
        (ValueError(""), None),
        (OSError("one line"), None),
        (SystemExit(1), "exit code 1"),
        (ValueError("x" * 5000), "a very long message"),
    ],
)
def test_other_errors_than_one_line_are_failures(tmp_path: Path, error: BaseException, problem: str | None) -> None:
    class Broken:
        def session(self, rng: object) -> None:
            raise error

    outcome, found = attempt(Broken(), "session", choose(0, ["session"])[1])
    assert (outcome, found.startswith(problem or "")) == ("failed" if problem else "refused", True)


def test_checkpoints_are_compared_bit_for_bit() -> None:
    content = {"model": {"w": torch.tensor([1.0, 2.0])}, "step": 3, "groups": [{"lr": 0.1}]}
    assert equal(content, {**content, "model": {"w": torch.tensor([1.0, 2.0])}})
    assert not equal(content, {**content, "model": {"w": torch.tensor([1.0, 2.0 + 2**-22])}})
    assert not equal(content, {**content, "model": {"w": torch.tensor([1.0, 2.0], dtype=torch.float64)}})
    assert not equal(content, {**content, "groups": [{"lr": 0.2}]})
    assert not equal(content, {**content, "more": 1})


def test_generated_documents_have_the_size_asked_for_and_differ(tmp_path: Path) -> None:
    write_text(tmp_path / "text.jsonl", 100_000)
    assert 100_000 <= (tmp_path / "text.jsonl").stat().st_size < 3_000_000
    texts = list(documents(tmp_path / "text.jsonl"))
    assert len(set(texts)) == len(texts)
