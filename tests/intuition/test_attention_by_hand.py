"""Softmax, attention and the causal mask match PyTorch and the model."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from src.intuition.attention_by_hand import KEYS, QUERIES, VALUES, attention, attention_scores, mix
from src.intuition.causal_mask import attend, hide_future
from src.intuition.softmax import softmax
from src.model.attention import MultiHeadAttention
from src.model.config import GPTConfig


def test_softmax_matches_torch() -> None:
    scores = [3.0, -1.5, 0.0, 800.0, 799.0, -math.inf]
    assert softmax(scores) == pytest.approx(torch.tensor(scores, dtype=torch.float64).softmax(0).tolist(), abs=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_matches_torch(causal: bool) -> None:
    q, k, v = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scores = attention_scores(q.tolist(), k.tolist())
    mixed = mix([softmax(row) for row in (hide_future(scores) if causal else scores)], v.tolist())
    torch.testing.assert_close(torch.tensor(mixed, dtype=torch.float64), attended(q, k, v, causal))


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal)[0]


def test_causal_demonstration_matches_the_model() -> None:
    layer = MultiHeadAttention(GPTConfig(vocab_size=9, context_length=3, d_model=2, n_heads=1, n_layers=1))
    ours = torch.cat([torch.tensor(matrix) for matrix in (QUERIES, KEYS, VALUES)], dim=1)  # (3, 6)
    # A linear layer can map the inputs (0, 0), (1, 0) and (0, 1) to any three rows.
    with torch.no_grad():
        layer.c_attn.bias.copy_(ours[0])
        layer.c_attn.weight.copy_((ours[1:] - ours[0]).T)
        layer.c_proj.bias.zero_()
        layer.c_proj.weight.copy_(torch.eye(2))
        expected = layer(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]))[0]
    torch.testing.assert_close(torch.tensor(attend(KEYS, VALUES, causal=True)), expected)


def test_picture_is_saved_to_the_printed_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder" / "w.png"
    attention(out)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert str(out) in capsys.readouterr().out


def test_unwritable_picture_error_suggests_out_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^can't write the picture .*w\.png: .*; choose another file with --out PATH$"):
        attention(tmp_path / "file" / "w.png")
