"""The MLP matches the model's."""

import pytest
import torch
import torch.nn.functional as F

from src.intuition.mlp import BIASES, OUTPUT_WEIGHTS, TEXTS, WEIGHTS, gelu, mlp_output
from src.model.config import GPTConfig
from src.model.transformerBlock import MLP


def test_gelu_matches_torch() -> None:
    numbers = [-6.0, -2.0, -0.1, 0.0, 0.7, 3.0]
    expected = F.gelu(torch.tensor(numbers, dtype=torch.float64), approximate="tanh")
    assert [*map(gelu, numbers)] == pytest.approx(expected.tolist(), abs=1e-12)


def test_outputs_match_the_model_and_are_nearly_what_is_wanted() -> None:
    layer = MLP(GPTConfig(vocab_size=9, context_length=4, d_model=2, n_heads=1, n_layers=1, d_ff=2))
    with torch.no_grad():
        layer.c_fc.weight.copy_(torch.tensor(WEIGHTS))
        layer.c_fc.bias.copy_(torch.tensor(BIASES))
        layer.c_proj.weight.copy_(torch.tensor([OUTPUT_WEIGHTS, (0.0, 0.0)]))
        layer.c_proj.bias.zero_()
        expected = layer(torch.tensor([[*TEXTS.values()]], dtype=torch.float32))[0, :, 0]
    outputs = [mlp_output(x) for x in TEXTS.values()]
    assert outputs == pytest.approx(expected.tolist(), abs=1e-6)
    assert outputs == pytest.approx([0, 1, 0, -1], abs=0.03)
