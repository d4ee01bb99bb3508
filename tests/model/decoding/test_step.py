"""The fast decode step equals the model's own forward pass."""

import pytest
import torch

from src.model import few_rows
from src.model.decoding.step import SingleTokenStep
from src.model.gpt import GPTModel
from src.model.quantize import quantize_int8


@pytest.mark.parametrize("kind", ["fp32", "fp32 in parts", "int8"])
@pytest.mark.parametrize("lengths", [[5], [7, 7, 7], [1, 9, 4]])
@torch.no_grad()
def test_single_token_step_equals_the_model(
    model: GPTModel, kind: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_rows, "MIN_ELEMENTS", 0)
    monkeypatch.setattr(few_rows, "parts_are_faster", lambda: kind == "fp32 in parts")
    model, tolerance = (quantize_int8(model), 0.05) if kind == "int8" else (model, 1e-5)
    ids = torch.randint(257, (len(lengths), 10), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache(len(lengths) + 1)
    cache.keys_values.zero_()
    expected = torch.cat([model.hidden_states(ids[i : i + 1, : n + 1])[:, -1] for i, n in enumerate(lengths)])
    for i, n in enumerate(lengths):
        model.hidden_states(ids[i : i + 1, :n], cache.row(i))
    last = [int(ids[i, n]) for i, n in enumerate(lengths)]
    states = SingleTokenStep(model).hidden_states(last, cache, lengths)
    torch.testing.assert_close(states, expected, atol=tolerance, rtol=tolerance)
    for i, n in enumerate(lengths):  # the new keys and values follow those of the earlier tokens
        whole = model.new_cache()
        model.hidden_states(ids[i : i + 1, : n + 1], whole)
        ours, expected = (each[..., : n + 1, :] for each in (cache.keys_values[:, i], whole.keys_values[:, 0]))
        torch.testing.assert_close(ours, expected, atol=tolerance, rtol=tolerance)
