"""Parts of the benchmarks that do not measure: the check of --rounds, and the embeddings of memory_recall."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from benchmarks.memory_recall import mean_pooled
from src.checkpoint import LoadedModel
from src.model.gpt import GPTModel
from src.tokenizer import build_word_encoding

WITH_ROUNDS = ("decode_modes", "decode_speed", "draft_tokens", "scaling", "sk_startup", "token_cache", "training_speed",
               "tuning_speed")  # fmt: skip


@pytest.mark.parametrize("name", WITH_ROUNDS)
def test_rounds_must_be_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match="^--rounds must be at least 1, got 0$"):
        import_module(f"benchmarks.{name}").main(["--rounds", "0"])


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
