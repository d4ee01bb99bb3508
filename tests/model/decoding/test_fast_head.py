"""The half-precision head gives exactly the largest logits of the full head."""

import copy
import math
import threading

import pytest
import torch
from torch import Tensor

from src.model.decoding.fast_head import HalfPrecisionHead
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.model.quantize import quantize_int8
from tests.fakes import BYTE_MODEL, ByteEncoding

pytestmark = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("fbgemm", "x86"), reason="only x86 has an fp16 kernel"
)
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR) * scale


def head_of(kind: str) -> tuple[Tensor, Tensor]:
    """A weight and states; for most kinds, fp16 can hardly distinguish their logits."""
    weight, states = normal(5000, 64), normal(3, 64)
    if kind == "nearly equal":  # closer to each other than fp16 can represent
        weight = normal(50, 64).repeat_interleave(100, dim=0) * (1 + 1e-4 * normal(5000, 1))
    elif kind == "far from zero":  # like GPT-2's own logits
        weight, states = weight + 3, states + 7
    elif kind == "large and small numbers":
        weight = weight * torch.logspace(-8, 3, 64)
    elif kind == "tiny":
        weight = weight * 1e-7
    return weight, states


@pytest.mark.parametrize("k", [1, 2, 40, 300])
@pytest.mark.parametrize("kind", ["plain", "nearly equal", "far from zero", "large and small numbers", "tiny"])
def test_top_k_logits_equal_the_full_head(kind: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.model.decoding.fast_head.MAX_RECOMPUTED_SHARE", 1)
    weight, states = head_of(kind)
    exact = states @ weight.T
    logits = HalfPrecisionHead(weight).logits(states, k)
    expected, found = exact.topk(k), logits.topk(k)
    close = {"rtol": 1e-6, "atol": 1e-6 * float(states.norm(dim=1).max() * weight.norm(dim=1).max())}
    torch.testing.assert_close(found.values, expected.values, **close)
    # If two differ by summation order only, either may come first.
    torch.testing.assert_close(exact.gather(1, found.indices), expected.values, **close)


def test_error_bound_covers_fp16_rounding() -> None:
    for kind in ("plain", "far from zero", "large and small numbers", "tiny"):
        weight, states = head_of(kind)
        head = HalfPrecisionHead(weight)
        approximate = torch.ops.quantized.linear_dynamic_fp16(states, head._packed)
        errors = (approximate.double() - states.double() @ weight.double().T).abs().amax(dim=1)
        assert (errors > 0).all()
        assert (errors <= head._error_bound * states.norm(dim=1)).all()
        assert (errors >= 0.01 * head._error_bound * states.norm(dim=1)).all()  # and the bound is not far above it


def test_error_bound_covers_summation_order() -> None:
    weight, states = normal(500, 2048).half().float(), normal(3, 2048)
    head = HalfPrecisionHead(weight)
    approximate = torch.ops.quantized.linear_dynamic_fp16(states, head._packed)
    errors = (approximate.double() - states.double() @ weight.double().T).abs().amax(dim=1)
    assert (errors > 0).all()
    assert (errors <= head._error_bound * states.norm(dim=1)).all()


def test_the_largest_logit_is_found_even_if_fp16_reverses_the_order() -> None:
    unit = 2**-11  # half a unit in the last place of fp16, just above 1
    largest, other = torch.full((64,), 1 + 0.98 * unit), torch.full((64,), 1 + 1.02 * unit)
    other[-1] = (1 - 6.3 * unit) // (unit / 2) * (unit / 2)  # exact in fp16
    # The last rows are in another chunk, which has no rounding error.
    weight, states = torch.cat([largest[None], other[None], torch.zeros(500, 64)]), torch.ones(1, 64)
    assert (states @ weight.half().float().T).argmax() == 1
    assert HalfPrecisionHead(weight).logits(states, 1).argmax() == (states @ weight.T).argmax() == 0


def test_few_rows_are_recomputed() -> None:
    weight, states = head_of("plain")
    head = HalfPrecisionHead(weight)
    approximate = torch.ops.quantized.linear_dynamic_fp16(states, head._packed)
    changed = (head.logits(states, 40) != approximate).sum(dim=1)
    assert ((changed >= 30) & (changed < 50)).all()  # recomputing leaves some unchanged


@pytest.mark.parametrize("case", ["all equal", "large k", "half precision", "autocast"])
def test_no_logits_if_a_full_product_is_faster(case: str) -> None:
    weight, states = head_of("plain")
    head = HalfPrecisionHead(normal(1, 64).expand(5000, 64).contiguous() if case == "all equal" else weight)
    states = states.bfloat16() if case == "half precision" else states
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        assert head.logits(states, 313 if case == "large k" else 1) is None


@pytest.mark.parametrize("number", [65510.0, -65510.0, 1e9, -math.inf, math.nan])
def test_a_weight_beyond_fp16_is_left_unchanged(number: float) -> None:
    weight, states = head_of("plain")
    weight[3, 5] = number
    before = weight.clone()
    assert HalfPrecisionHead(weight).logits(states, 1) is None
    torch.testing.assert_close(weight, before, rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def generators(monkeypatch: pytest.MonkeyPatch) -> tuple[TextGenerator, TextGenerator]:
    """Two generators of one model, the second with a half-precision head. The model has more ids than the tokenizer."""
    torch.manual_seed(0)
    model = GPTModel({**BYTE_MODEL, "vocab_size": 300}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        model.wte.weight[257:] *= 10  # they would be sampled
    monkeypatch.setattr("src.model.decoding.fast_head.CACHE_BYTES", 0)
    monkeypatch.setattr("src.model.decoding.fast_head.MAX_RECOMPUTED_SHARE", 1)
    plain, prepared = TextGenerator(model, ByteEncoding()), TextGenerator(copy.deepcopy(model), ByteEncoding())
    prepared.prepare_fast_decoding(wait=True)
    return plain, prepared


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0}, {"top_k": 7, "seed": 1}, {"top_k": 40, "top_p": 0.8, "temperature": 0.7, "seed": 2}],
)
def test_a_prepared_generator_generates_the_same_text(
    generators: tuple[TextGenerator, TextGenerator], settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, prepared = generators
    prompts = ["", "a", "abcabcabcabc", "some words"]
    expected = [plain.generate(prompt, 30, **settings) for prompt in prompts]
    together = plain.generate_batch(prompts, 30, **settings)
    monkeypatch.setattr(prepared.model, "head", None)  # no longer used
    assert [prepared.generate(prompt, 30, **settings) for prompt in prompts] == expected
    assert [prepared.generate(prompt, 30, draft_tokens=5, **settings) for prompt in prompts] == expected
    assert prepared.generate_batch(prompts, 30, **settings) == together
    assert len(set(expected)) == 4


def test_top_k_up_to_the_vocabulary_gives_the_same_text(
    generators: tuple[TextGenerator, TextGenerator],
) -> None:
    plain, prepared = generators
    for seed in range(5):  # the tokenizer has 257 ids
        assert prepared.generate("a", 20, top_k=257, seed=seed) == plain.generate("a", 20, top_k=257, seed=seed)
        assert prepared.generate("a", 20, top_k=280, seed=seed) == plain.generate("a", 20, top_k=280, seed=seed)


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"top_k": 3, "repetition_penalty": 1.3}])
def test_the_full_head_is_used_if_all_logits_are_needed(
    generators: tuple[TextGenerator, TextGenerator], settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, prepared = generators
    monkeypatch.setattr(HalfPrecisionHead, "logits", None)
    assert prepared.generate("a", 20, seed=1, **settings) == plain.generate("a", 20, seed=1, **settings)
    assert prepared.predict_next_token("a") == plain.predict_next_token("a")


def test_generation_works_before_and_without_the_copy(
    generators: tuple[TextGenerator, TextGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = generators
    expected = plain.generate("a", 10, temperature=0)
    released = threading.Event()

    def no_memory(self: HalfPrecisionHead, weight: Tensor) -> None:
        released.wait(60)
        raise MemoryError("no memory for a copy")

    monkeypatch.setattr(HalfPrecisionHead, "__init__", no_memory)
    prepared = TextGenerator(plain.model, ByteEncoding())
    prepared.prepare_fast_decoding()
    assert prepared.generate("a", 10, temperature=0) == expected
    released.set()
    with pytest.raises(MemoryError, match="no memory for a copy"):
        prepared.prepare_fast_decoding(wait=True)
    assert prepared.generate("a", 10, temperature=0) == expected


def test_a_small_head_is_not_copied() -> None:
    generator = TextGenerator(GPTModel(BYTE_MODEL), ByteEncoding())
    generator.prepare_fast_decoding(wait=True)
    assert generator._head._fast_head is None


def test_only_a_large_fp32_head_on_a_cpu_is_worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPTModel(BYTE_MODEL)
    assert not HalfPrecisionHead.is_worthwhile(model)  # small
    assert not HalfPrecisionHead.is_worthwhile(GPTModel({**BYTE_MODEL, "vocab_size": 150_000}))  # 19 MB
    assert HalfPrecisionHead.is_worthwhile(GPTModel({**BYTE_MODEL, "vocab_size": 150_000, "d_model": 64}))
    monkeypatch.setattr("src.model.decoding.fast_head.CACHE_BYTES", 0)
    assert HalfPrecisionHead.is_worthwhile(model)
    assert not HalfPrecisionHead.is_worthwhile(quantize_int8(model))
    assert not HalfPrecisionHead.is_worthwhile(copy.deepcopy(model).bfloat16())
    assert not HalfPrecisionHead.is_worthwhile(copy.deepcopy(model).to("meta"))
    monkeypatch.setattr("torch.backends.quantized.engine", "qnnpack")
    assert not HalfPrecisionHead.is_worthwhile(model)
