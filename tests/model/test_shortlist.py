"""The largest logits are those of the whole head, however little of it was read in 32 bits."""

import copy

import pytest
import torch
from torch import Tensor

from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.model.quantize import quantize_int8
from src.model.sampling import SamplingSettings
from src.model.shortlist import Shortlist
from tests.model.test_generate import Spelling
from tests.model.test_writing import CONFIG

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR) * scale


def head_of(kind: str) -> tuple[Tensor, Tensor]:
    """Weight and states whose logits are hard to tell apart in 16 bits, each in a way of its own."""
    weight, states = normal(5000, 64), normal(3, 64)
    if kind == "many alike":  # nearer to each other than 16 bits can say
        weight = normal(50, 64).repeat_interleave(100, dim=0) * (1 + 1e-4 * normal(5000, 1))
    elif kind == "far from zero":  # as GPT-2's own logits are
        weight, states = weight + 3, states + 7
    elif kind == "large and small numbers":
        weight = weight * torch.logspace(-8, 3, 64)
    elif kind == "tiny":
        weight = weight * 1e-7
    elif kind == "too large for 16 bits":
        weight = weight * 1e5
    return weight, states


@pytest.mark.parametrize("k", [1, 2, 40, 5000, 9999])
@pytest.mark.parametrize(
    "kind", ["plain", "many alike", "far from zero", "large and small numbers", "tiny", "too large for 16 bits"]
)
def test_the_k_largest_are_those_of_the_head(kind: str, k: int) -> None:
    weight, states = head_of(kind)
    before = weight.clone()
    exact = states @ weight.T
    logits = Shortlist(weight).logits(states, k)
    expected, found = exact.topk(min(k, 5000)), logits.topk(min(k, 5000))
    close = {"rtol": 1e-6, "atol": 1e-6 * float(states.norm(dim=1).max() * weight.norm(dim=1).max())}
    torch.testing.assert_close(found.values, expected.values, **close)
    # Where two are the same number but for the order of adding, either may come first.
    torch.testing.assert_close(exact.gather(1, found.indices), expected.values, **close)
    assert torch.equal(weight, before)


def test_what_the_rows_are_compared_by_holds_their_error() -> None:
    for kind in ("plain", "far from zero", "large and small numbers", "tiny"):
        weight, states = head_of(kind)
        shortlist = Shortlist(weight)
        rough = torch.ops.quantized.linear_dynamic_fp16(states, shortlist._packed)
        off = (rough.double() - states.double() @ weight.double().T).abs().amax(dim=1)
        assert (off > 0).all()
        assert (off <= shortlist._error * states.norm(dim=1)).all()
        assert (off >= 0.01 * shortlist._error * states.norm(dim=1)).all()  # and is not far above it


def test_sums_in_another_order_are_allowed_for_even_where_16_bits_hold_the_weight() -> None:
    weight, states = normal(500, 2048).half().float(), normal(3, 2048)
    shortlist = Shortlist(weight)
    rough = torch.ops.quantized.linear_dynamic_fp16(states, shortlist._packed)
    off = (rough.double() - states.double() @ weight.double().T).abs().amax(dim=1)
    assert (off > 0).all()
    assert (off <= shortlist._error * states.norm(dim=1)).all()


def test_the_largest_is_found_where_it_was_rounded_down_and_another_one_up() -> None:
    unit = 2**-11  # half of what the last bit of 16 counts for, just above 1
    largest, other = torch.full((64,), 1 + 0.98 * unit), torch.full((64,), 1 + 1.02 * unit)
    other[-1] = (1 - 6.3 * unit) // (unit / 2) * (unit / 2)  # a number of 16 bits
    weight, states = torch.cat([largest[None], other[None], torch.zeros(100, 64)]), torch.ones(1, 64)
    assert (states @ weight.half().float().T).argmax() == 1
    assert Shortlist(weight).logits(states, 1).argmax() == (states @ weight.T).argmax() == 0


def test_few_rows_are_read_twice() -> None:
    weight, states = head_of("plain")
    shortlist = Shortlist(weight)
    rough = torch.ops.quantized.linear_dynamic_fp16(states, shortlist._packed)
    touched = (shortlist.logits(states, 40) != rough).sum(dim=1)
    assert ((touched >= 30) & (touched < 50)).all()  # some come out as they were


def test_a_head_that_tells_nothing_apart_is_read_as_it_is() -> None:
    weight = normal(1, 64).expand(5000, 64).contiguous()
    states = normal(2, 64)
    torch.testing.assert_close(Shortlist(weight).logits(states, 1), states @ weight.T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "deciding"),
    [
        ({"temperature": 0}, 1),
        ({"temperature": 0, "top_k": 5}, 1),
        ({"top_k": 5, "top_p": 0.5}, 5),
        ({"top_p": 0.5}, None),
        ({}, None),
        ({"top_k": 5, "repetition_penalty": 1.1}, None),
        ({"temperature": 0, "repetition_penalty": 0.9}, None),
    ],
)
def test_how_many_logits_decide(settings: dict, deciding: int | None) -> None:
    assert SamplingSettings(**settings).deciding == deciding


@pytest.fixture(scope="module")
def generators() -> tuple[TextGenerator, TextGenerator]:
    """Two of the same model, the second with a shortlist. The model knows more ids than the tokenizer spells."""
    model = GPTModel({**CONFIG, "vocab_size": 300}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=GENERATOR)
    with torch.no_grad():
        model.wte.weight[257:] *= 10  # they would win
    plain, settled = TextGenerator(model, Spelling()), TextGenerator(copy.deepcopy(model), Spelling())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.model.shortlist.IN_CACHE", 0)
        patch.setattr("src.model.shortlist.MANY", 1)
        settled.settle(wait=True)
    return plain, settled


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0}, {"top_k": 7, "seed": 1}, {"top_k": 40, "top_p": 0.8, "temperature": 0.7, "seed": 2}],
)
def test_a_settled_generator_writes_the_same_text(
    generators: tuple[TextGenerator, TextGenerator], settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, settled = generators
    prompts = ["", "a", "abcabcabcabc", "some words"]
    expected = [plain.generate(prompt, 30, **settings) for prompt in prompts]
    together = plain.generate_batch(prompts, 30, **settings)
    monkeypatch.setattr(settled.model, "head", None)  # is not asked any more
    assert [settled.generate(prompt, 30, **settings) for prompt in prompts] == expected
    assert [settled.generate(prompt, 30, lookup=5, **settings) for prompt in prompts] == expected
    assert settled.generate_batch(prompts, 30, **settings) == together
    assert len(set(expected)) == 4


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"top_k": 3, "repetition_penalty": 1.3}])
def test_where_all_logits_decide_the_whole_head_is_read(
    generators: tuple[TextGenerator, TextGenerator], settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, settled = generators
    monkeypatch.setattr(Shortlist, "logits", None)
    assert settled.generate("a", 20, seed=1, **settings) == plain.generate("a", 20, seed=1, **settings)
    assert settled.predict_next_token("a") == plain.predict_next_token("a")


def test_only_a_large_head_in_32_bits_on_a_cpu_has_a_shortlist(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPTModel(CONFIG)
    assert not Shortlist.pays(model)  # a small one
    monkeypatch.setattr("src.model.shortlist.IN_CACHE", 0)
    assert Shortlist.pays(model)
    assert not Shortlist.pays(quantize_int8(model))
    assert not Shortlist.pays(copy.deepcopy(model).bfloat16())
    assert not Shortlist.pays(copy.deepcopy(model).to("meta"))
    monkeypatch.setattr("torch.backends.quantized.engine", "qnnpack")
    assert not Shortlist.pays(model)
