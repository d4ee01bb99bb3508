"""int8 compared with fp32: layers, whole models, and the perplexity of a small trained model."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.model.quantize import Int8Embedding, Int8Linear, quantize_int8, quantize_rows

CONFIG = {"vocab_size": 300, "context_length": 64, "d_model": 64, "n_heads": 4, "n_layers": 2, "dropout": 0.1}


@pytest.fixture(scope="module")
def trained() -> tuple[GPTModel, torch.Tensor]:
    """A small model trained on an artificial language, and the ids of a held-out text in that language."""
    torch.manual_seed(0)
    following = torch.randint(300, (300, 4))  # each token is followed by one of four others
    tokens = [0]
    for _ in range(6000):
        tokens.append(int(following[tokens[-1], torch.randint(4, ())]))
    ids = torch.tensor(tokens)
    model = GPTModel(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        starts = torch.randint(5000, (16, 1))
        windows = ids[starts + torch.arange(33)]
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), ids[5033 : 5033 + 15 * 64 + 1]  # the last training window ends at 5032


def perplexity(model: GPTModel, text: torch.Tensor) -> float:
    with torch.inference_mode():
        logits = model(text[:-1].view(15, 64))
    return math.exp(F.cross_entropy(logits.flatten(0, 1), text[1:]))


def test_quantization_error_is_at_most_half_a_level() -> None:
    weight = torch.randn(20, 30) * torch.logspace(-6, 3, 20)[:, None]
    weight[7] = 0
    levels, scale = quantize_rows(weight)
    assert levels.dtype == torch.int8
    assert (levels[7] == 0).all()
    errors = (levels * scale[:, None] - weight).abs()
    assert (errors <= 0.5001 * weight.abs().amax(dim=1, keepdim=True) / 127).all()


@pytest.mark.parametrize("shape", [(64,), (1, 64), (1, 1, 64), (7, 64), (3, 5, 64)])
def test_int8_linear_approximates_linear(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(96, 64), torch.randn(96), torch.randn(shape) + 2
    ours = Int8Linear(*quantize_rows(weight), bias)(x)
    exact = F.linear(x, weight, bias)
    assert ours.shape == exact.shape
    assert (ours - exact).abs().max() < 0.02 * exact.abs().max()
    torch.testing.assert_close(Int8Linear(*quantize_rows(weight))(x), ours - bias, atol=2e-4, rtol=1e-4)


def test_each_token_is_quantized_independently() -> None:
    torch.manual_seed(0)
    linear = Int8Linear(*quantize_rows(torch.randn(96, 64)), torch.randn(96))
    x = torch.randn(6, 64) * torch.tensor([1e-3, 1.0, 50.0, 1e3, 1e5, 0.0])[:, None] + 0.1
    together, alone = linear(x), torch.cat([linear(row[None]) for row in x])
    exact = F.linear(x, linear_weight(linear), linear.bias)
    for row in range(6):
        scale = (exact[row] - linear.bias).abs().max()
        assert (together[row] - alone[row]).abs().max() < 0.02 * scale
        assert (together[row] - exact[row]).abs().max() < 0.02 * scale


def linear_weight(linear: Int8Linear) -> torch.Tensor:
    packed, _ = torch.ops.quantized.linear_unpack(linear.packed)
    return packed.dequantize()


def test_int8_embedding_looks_up_dequantized_rows() -> None:
    weight = torch.randn(10, 8)
    levels, scale = quantize_rows(weight)
    ids = torch.tensor([[3, 3, 9]])
    assert torch.equal(Int8Embedding(levels, scale)(ids), F.embedding(ids, levels * scale[:, None]))


def test_perplexity_stays_within_one_percent(trained: tuple[GPTModel, torch.Tensor]) -> None:
    model, text = trained
    exact = perplexity(model, text)
    assert exact < 12  # 300 without training, 4 at best: quantization could make it worse
    assert perplexity(quantize_int8(model), text) == pytest.approx(exact, rel=0.01)


def test_quantization_leaves_the_original_unchanged(trained: tuple[GPTModel, torch.Tensor]) -> None:
    model, text = trained
    before = copy.deepcopy(model.state_dict())
    quantized = quantize_int8(model)
    assert isinstance(quantized, GPTModel) and quantized.config == model.config and not quantized.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model(text[None, :8]).dtype == torch.float32


def test_every_matrix_is_quantized(trained: tuple[GPTModel, torch.Tensor]) -> None:
    quantized = quantize_int8(trained[0])
    assert {name for name, p in quantized.named_parameters() if p.dim() > 1} == {"wpe.weight"}
    kinds = [type(module) for module in quantized.modules()]
    assert (kinds.count(Int8Linear), kinds.count(Int8Embedding)) == (2 * 4 + 1, 1)


class NumberEncoding:
    """The text of a token is its id and a space."""

    name, n_vocab, eot_token = "numbers", 300, -1

    def decode_bytes(self, tokens) -> bytes:
        return "".join(f"{i} " for i in tokens).encode()


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 3}])
def test_int8_generation_is_deterministic(trained: tuple[GPTModel, torch.Tensor], settings: dict) -> None:
    quantized, prompt = quantize_int8(trained[0]), trained[1][:5].tolist()
    texts = [TextGenerator(quantized, NumberEncoding()).generate(prompt, 20, **settings) for _ in range(2)]
    assert texts[0] == texts[1]


def test_int8_generation_with_a_cache_equals_recomputing(trained: tuple[GPTModel, torch.Tensor]) -> None:
    generator, ids = TextGenerator(quantize_int8(trained[0]), NumberEncoding()), trained[1][:5].tolist()
    cached = generator.generate(ids, 20, temperature=0).split()
    recomputed = []
    for _ in range(20):
        recomputed.append(generator.generate([*ids, *map(int, recomputed)], 1, temperature=0).strip())
    equal = sum(a == b for a, b in zip(cached, recomputed, strict=True))
    assert equal >= 18  # rounding may reverse a near tie, and change everything after it


def test_a_model_on_another_device_is_refused() -> None:
    with torch.device("meta"):
        model = GPTModel(GPT_CONFIGS["micro"])
    with pytest.raises(ValueError, match="int8 runs on the CPU, the model is on meta; leave --quantize out"):
        quantize_int8(model)


def test_a_quantized_model_shares_no_memory_with_the_original() -> None:
    model = GPTModel(CONFIG).eval()
    quantized, ids = quantize_int8(model.train()), torch.randint(300, (1, 9))
    assert model.training and model.ln_f.training
    with torch.inference_mode():
        before = quantized(ids)
        for parameter in model.parameters():
            parameter.mul_(3)
        model.bfloat16()
        torch.testing.assert_close(quantized(ids), before, atol=0, rtol=0)
