"""The model equals transformers' GPT2LMHeadModel with random weights, and has the properties of a GPT-2."""

import math
import random
import re

import pytest
import torch
import torch.nn.functional as F

from src.model.attention import BLOCK_QUERIES, attend_in_blocks
from src.model.gpt import GPT_CONFIGS, GPTConfig, GPTModel
from src.model.load_gpt2 import state_dict_from_hugging_face
from src.model.meta_device import initial_weights
from tests.fakes import model_and_reference

SMALL = {"vocab_size": 101, "context_length": 48, "d_model": 32, "n_heads": 4, "n_layers": 3, "dropout": 0.0}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (SMALL, (1, 1)),
        (SMALL, (3, 17)),
        (SMALL, (2, 48)),
        ({**SMALL, "n_heads": 1, "n_layers": 1}, (2, 20)),
        ({**SMALL, "d_model": 48, "n_heads": 6}, (4, 9)),
        ({**SMALL, "context_length": 1024}, (1, 1024)),
    ],
)
def test_logits_and_gradients_equal_transformers(config: dict, shape: tuple[int, int]) -> None:
    ours, theirs = model_and_reference(config)
    ids = torch.randint(config["vocab_size"], shape)
    our_logits, their_logits = ours(ids), theirs(ids).logits
    torch.testing.assert_close(our_logits, their_logits, atol=2e-4, rtol=1e-4)
    weights = torch.randn_like(our_logits)
    (our_logits * weights).sum().backward()
    (their_logits * weights).sum().backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    expected = state_dict_from_hugging_face(their_gradients, ours.config)
    for name, parameter in ours.named_parameters():
        scale = expected[name].abs().max()
        torch.testing.assert_close(parameter.grad / scale, expected[name] / scale, atol=1e-4, rtol=1e-3, msg=name)


def test_loss_equals_transformers() -> None:
    ours, theirs = model_and_reference(SMALL)
    ids = torch.randint(101, (4, 30))
    loss = F.cross_entropy(ours(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(loss, theirs(ids, labels=ids).loss)


@pytest.mark.parametrize("chunks", [[13], [1] * 13, [5, 1, 7], [12, 1], [1, 12], [6, 7]])
def test_cached_logits_equal_uncached_for_every_chunking(chunks: list[int]) -> None:
    ours, _ = model_and_reference(SMALL)
    ids = torch.randint(101, (3, 13))
    with torch.no_grad():
        cache = ours.new_cache(batch_size=3)
        parts = [ours(part, cache) for part in ids.split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), ours(ids), atol=1e-5, rtol=1e-5)
        assert cache.length == 13


def test_cached_logits_equal_uncached_for_every_prompt_length() -> None:
    ours, _ = model_and_reference(SMALL)
    ids = torch.randint(101, (2, 48))
    with torch.no_grad():
        expected = ours(ids)
        for length in range(1, 48):
            cache = ours.new_cache(batch_size=2)
            prompt = ours(ids[:, :length], cache)
            torch.testing.assert_close(prompt, expected[:, :length], atol=1e-5, rtol=1e-5)
            token = ours(ids[:, length : length + 1], cache)
            torch.testing.assert_close(token, expected[:, length : length + 1], atol=1e-5, rtol=1e-5)
            rest = ours(ids[:, length + 1 :], cache) if length < 47 else expected[:, 48:]
            torch.testing.assert_close(rest, expected[:, length + 1 :], atol=1e-5, rtol=1e-5)


def test_a_token_does_not_attend_to_later_tokens() -> None:
    ours, _ = model_and_reference(SMALL)
    ids = torch.randint(101, (1, 20))
    changed = ids.clone()
    changed[0, 11:] = (changed[0, 11:] + 1) % 101
    with torch.no_grad():
        before, after = ours(ids), ours(changed)
    assert torch.equal(before[0, :11], after[0, :11])
    assert not torch.allclose(before[0, 11:], after[0, 11:])


@pytest.mark.parametrize("length", [2, BLOCK_QUERIES, BLOCK_QUERIES + 1, 2 * BLOCK_QUERIES + 37])
def test_attention_in_blocks_is_causal_attention(length: int) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, length, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    ours = attend_in_blocks(*parts)
    expected = F.scaled_dot_product_attention(*parts, is_causal=True)
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(ours)
    for mine, reference in zip(
        torch.autograd.grad(ours, parts, weights), torch.autograd.grad(expected, parts, weights), strict=True
    ):
        torch.testing.assert_close(mine, reference)


def test_attention_in_blocks_drops_attention_weights() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 200, 8)
    ones = torch.ones(1, 1, 200, 1)
    sums = attend_in_blocks(q, k, ones, dropout=0.5)  # of the attention weights that are left, twice as large
    assert sums.std() > 0.1
    assert sums.mean() == pytest.approx(1.0, abs=0.1)


def test_a_training_step_in_bf16_equals_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = model_and_reference(SMALL)
    ids, gradients = torch.randint(101, (2, 48)), []
    fused = F.scaled_dot_product_attention
    for attend in (attend_in_blocks, lambda q, k, v, dropout: fused(q, k, v, is_causal=True)):
        monkeypatch.setattr("src.model.attention.attend_in_blocks", attend)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1).float(), ids[:, 1:].flatten())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[1].norm()
    assert not torch.equal(*gradients)  # so the model did use the blocks


def test_more_tokens_than_the_context_are_refused() -> None:
    ours, _ = model_and_reference(SMALL)
    with pytest.raises(ValueError, match="49 tokens do not fit the model's context of 48"):
        ours(torch.zeros(1, 49, dtype=torch.int64))
    cache = ours.new_cache()
    with torch.no_grad():
        ours(torch.zeros(1, 40, dtype=torch.int64), cache)
    with pytest.raises(ValueError, match="50 tokens"):
        ours(torch.zeros(1, 10, dtype=torch.int64), cache)


@pytest.mark.parametrize("seed", range(6))
def test_packed_segments_equal_separate_sequences(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    model = GPTModel(SMALL).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    segments: list[tuple[int, int | None]] = []
    sequences: list[list[int]] = []  # of each segment, with its ancestors
    for i in range(rng.randint(1, 8)):
        possible_parents = [j for j in range(i) if len(sequences[j]) < 36]
        parent = rng.choice([None, *possible_parents])
        own = [rng.randrange(101) for _ in range(rng.randint(1, 12))]
        segments.append((len(own), parent))
        sequences.append(([] if parent is None else sequences[parent]) + own)
    ids = [i for (length, _), sequence in zip(segments, sequences, strict=True) for i in sequence[-length:]]
    packed = model.hidden_states(torch.tensor([ids]), packing=segments)[0]
    alone = [
        model.hidden_states(torch.tensor([sequence]))[0, -length:]
        for (length, _), sequence in zip(segments, sequences, strict=True)
    ]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-12, rtol=1e-10)
    weights = torch.randn_like(packed)
    gradients = (
        torch.autograd.grad((states * weights).sum(), list(model.parameters())) for states in (packed, torch.cat(alone))
    )
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-8)


def test_packed_sequences_longer_than_the_context_are_refused() -> None:
    model = GPTModel(SMALL)
    ids = torch.zeros(1, 90, dtype=torch.int64)
    model.hidden_states(ids, packing=((40, None), (8, 0), (42, None)))
    with pytest.raises(ValueError, match="49 tokens do not fit the model's context of 48"):
        model.hidden_states(ids, packing=((40, None), (9, 0), (41, None)))
    with pytest.raises(ValueError, match="50 tokens"):
        model.hidden_states(ids, packing=((40, None), (5, 0), (5, 1), (40, None)))


def test_the_head_is_tied_to_the_token_embedding() -> None:
    model = GPTModel(SMALL)
    assert not [name for name, _ in model.named_parameters() if "head" in name]
    model(torch.zeros(1, 2, dtype=torch.int64)).sum().backward()
    assert (model.wte.weight.grad.abs().sum(dim=1) > 0).all()  # also for tokens that are not in the input


def test_initialisation_follows_gpt2() -> None:
    model = GPTModel({**SMALL, "vocab_size": 5000, "d_model": 128, "n_layers": 8})
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif re.search(r"ln_\w\.weight$", name):
            assert (parameter == 1).all(), name
        else:
            std = 0.02 / math.sqrt(16) if name.endswith("c_proj.weight") else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name


def test_dropout_is_active_in_training_only_and_can_be_changed() -> None:
    model = GPTModel({**SMALL, "dropout": 0.5})
    ids = torch.randint(101, (2, 10))
    assert not torch.equal(model(ids), model(ids))
    with model.evaluating():
        assert torch.equal(model(ids), model(ids))
    assert model.training
    model.set_dropout(0.0)
    assert torch.equal(model(ids), model(ids))
    assert model.config.dropout == 0.0


def test_mlp_activation_is_recomputed_in_backward() -> None:
    model, saved = GPTModel(SMALL), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        model(torch.randint(101, (3, 16)))
    sizes = [tensor.numel() for tensor in saved]
    assert sizes.count(3 * 16 * 4 * 32) == 3  # in three layers, the activation's input and not its output


def test_every_size_has_the_published_number_of_parameters() -> None:
    # Radford et al. 2019 give 117M to 1542M; the released files have 124M to 1558M. Brown et al. 2020, table 2.1.
    millions = {name: round(GPTConfig.of(size).parameter_count()[0] / 1e6) for name, size in GPT_CONFIGS.items()}
    assert [millions[f"gpt2-{size}"] for size in ("124M", "355M", "774M", "1558M")] == [124, 355, 774, 1558]
    published = {"125M": 125, "350M": 356, "760M": 760, "1.3B": 1316, "2.7B": 2651, "6.7B": 6658, "13B": 12853}
    for name, expected in published.items():
        assert millions[f"gpt3-{name}"] == pytest.approx(expected, rel=0.02), name
    assert millions["gpt3-175B"] == pytest.approx(174_600, rel=0.01)


@pytest.mark.parametrize("name", ["micro", "tiny", "gpt2-124M"])
def test_parameter_count_equals_the_model(name: str) -> None:
    with torch.device("meta"):
        model = GPTModel(GPT_CONFIGS[name])
    total, body = model.config.parameter_count()
    assert total == sum(p.numel() for p in model.parameters())
    assert body == total - model.wte.weight.numel() - model.wpe.weight.numel()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_head": 4}, "unknown key 'n_head', did you mean 'n_heads'"),
        ({"d_model": 30}, "n_heads must divide d_model, got d_model 30 and n_heads 4"),
        ({"n_layers": 0}, "n_layers must be a whole number of at least 1, got 0"),
        ({"vocab_size": True}, "vocab_size must be a whole number"),
        ({"d_model": "64"}, "d_model must be a whole number of at least 1, got '64'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"activation": "swish"}, "activation must be one of gelu_tanh, gelu, relu, got 'swish'"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon"),
    ],
)
def test_an_impossible_config_is_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPTModel({**SMALL, **change})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match="missing n_heads"):
        GPTModel({key: value for key, value in SMALL.items() if key != "n_heads"})


def test_initial_weights_one_at_a_time_equal_those_of_the_model() -> None:
    torch.manual_seed(5)
    model = GPTModel(SMALL)
    torch.manual_seed(5)
    drawn = dict(initial_weights(GPTConfig.of(SMALL)))
    assert drawn.keys() == model.state_dict().keys()
    assert all(torch.equal(drawn[name], weight) for name, weight in model.state_dict().items())
