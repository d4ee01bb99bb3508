"""The largest logits are those of the whole head, however little of it was read in 32 bits."""

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
    torch.backends.quantized.engine not in ("fbgemm", "x86"), reason="only x86 has a product for weights of 16 bits"
)
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
    return weight, states


@pytest.mark.parametrize("k", [1, 2, 40, 300])
@pytest.mark.parametrize("kind", ["plain", "many alike", "far from zero", "large and small numbers", "tiny"])
def test_the_k_largest_are_those_of_the_head(kind: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.model.decoding.fast_head.MAX_RECOMPUTED_SHARE", 1)
    weight, states = head_of(kind)
    exact = states @ weight.T
    logits = HalfPrecisionHead(weight).logits(states, k)
    expected, found = exact.topk(k), logits.topk(k)
    close = {"rtol": 1e-6, "atol": 1e-6 * float(states.norm(dim=1).max() * weight.norm(dim=1).max())}
    torch.testing.assert_close(found.values, expected.values, **close)
    # Where two are the same number but for the order of adding, either may come first.
    torch.testing.assert_close(exact.gather(1, found.indices), expected.values, **close)


def test_what_the_rows_are_compared_by_holds_their_error() -> None:
    for kind in ("plain", "far from zero", "large and small numbers", "tiny"):
        weight, states = head_of(kind)
        shortlist = HalfPrecisionHead(weight)
        rough = torch.ops.quantized.linear_dynamic_fp16(states, shortlist._packed)
        off = (rough.double() - states.double() @ weight.double().T).abs().amax(dim=1)
        assert (off > 0).all()
        assert (off <= shortlist._error * states.norm(dim=1)).all()
        assert (off >= 0.01 * shortlist._error * states.norm(dim=1)).all()  # and is not far above it


def test_sums_in_another_order_are_allowed_for_even_where_16_bits_hold_the_weight() -> None:
    weight, states = normal(500, 2048).half().float(), normal(3, 2048)
    shortlist = HalfPrecisionHead(weight)
    rough = torch.ops.quantized.linear_dynamic_fp16(states, shortlist._packed)
    off = (rough.double() - states.double() @ weight.double().T).abs().amax(dim=1)
    assert (off > 0).all()
    assert (off <= shortlist._error * states.norm(dim=1)).all()


def test_the_largest_is_found_where_it_was_rounded_down_and_another_one_up() -> None:
    unit = 2**-11  # half of what the last bit of 16 counts for, just above 1
    largest, other = torch.full((64,), 1 + 0.98 * unit), torch.full((64,), 1 + 1.02 * unit)
    other[-1] = (1 - 6.3 * unit) // (unit / 2) * (unit / 2)  # a number of 16 bits
    # The last rows are compared with their rounding in another piece, where there is none.
    weight, states = torch.cat([largest[None], other[None], torch.zeros(500, 64)]), torch.ones(1, 64)
    assert (states @ weight.half().float().T).argmax() == 1
    assert HalfPrecisionHead(weight).logits(states, 1).argmax() == (states @ weight.T).argmax() == 0


def test_few_rows_are_read_twice() -> None:
    weight, states = head_of("plain")
    shortlist = HalfPrecisionHead(weight)
    rough = torch.ops.quantized.linear_dynamic_fp16(states, shortlist._packed)
    touched = (shortlist.logits(states, 40) != rough).sum(dim=1)
    assert ((touched >= 30) & (touched < 50)).all()  # some come out as they were


@pytest.mark.parametrize("case", ["all alike", "most wanted", "half precision", "autocast"])
def test_where_a_shortlist_is_the_longer_way_there_is_none(case: str) -> None:
    weight, states = head_of("plain")
    shortlist = HalfPrecisionHead(normal(1, 64).expand(5000, 64).contiguous() if case == "all alike" else weight)
    states = states.bfloat16() if case == "half precision" else states
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        assert shortlist.logits(states, 313 if case == "most wanted" else 1) is None


@pytest.mark.parametrize("number", [65510.0, -65510.0, 1e9, -math.inf, math.nan])
def test_a_weight_that_16_bits_do_not_reach_is_left_as_it_is(number: float) -> None:
    weight, states = head_of("plain")
    weight[3, 5] = number
    before = weight.clone()
    assert HalfPrecisionHead(weight).logits(states, 1) is None
    torch.testing.assert_close(weight, before, rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def generators(monkeypatch: pytest.MonkeyPatch) -> tuple[TextGenerator, TextGenerator]:
    """Two of the same model, the second with a shortlist. The model knows more ids than the tokenizer spells."""
    torch.manual_seed(0)
    model = GPTModel({**BYTE_MODEL, "vocab_size": 300}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        model.wte.weight[257:] *= 10  # they would win
    monkeypatch.setattr("src.model.decoding.fast_head.CACHE_BYTES", 0)
    monkeypatch.setattr("src.model.decoding.fast_head.MAX_RECOMPUTED_SHARE", 1)
    plain, settled = TextGenerator(model, ByteEncoding()), TextGenerator(copy.deepcopy(model), ByteEncoding())
    settled.prepare_fast_decoding(wait=True)
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
    assert [settled.generate(prompt, 30, draft_tokens=5, **settings) for prompt in prompts] == expected
    assert settled.generate_batch(prompts, 30, **settings) == together
    assert len(set(expected)) == 4


def test_as_many_candidates_as_the_model_has_ids_draw_the_same_text(
    generators: tuple[TextGenerator, TextGenerator],
) -> None:
    plain, settled = generators
    for seed in range(5):  # the tokenizer spells 257 of them
        assert settled.generate("a", 20, top_k=257, seed=seed) == plain.generate("a", 20, top_k=257, seed=seed)
        assert settled.generate("a", 20, top_k=280, seed=seed) == plain.generate("a", 20, top_k=280, seed=seed)


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"top_k": 3, "repetition_penalty": 1.3}])
def test_where_all_logits_decide_the_whole_head_is_read(
    generators: tuple[TextGenerator, TextGenerator], settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, settled = generators
    monkeypatch.setattr(HalfPrecisionHead, "logits", None)
    assert settled.generate("a", 20, seed=1, **settings) == plain.generate("a", 20, seed=1, **settings)
    assert settled.predict_next_token("a") == plain.predict_next_token("a")


def test_texts_are_written_while_the_copy_is_made_and_if_it_cannot_be_made(
    generators: tuple[TextGenerator, TextGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = generators
    expected = plain.generate("a", 10, temperature=0)
    go_on = threading.Event()

    def no_memory(self: HalfPrecisionHead, weight: Tensor) -> None:
        go_on.wait(60)
        raise MemoryError("no memory for a copy")

    monkeypatch.setattr(HalfPrecisionHead, "__init__", no_memory)
    settled = TextGenerator(plain.model, ByteEncoding())
    settled.prepare_fast_decoding()
    assert settled.generate("a", 10, temperature=0) == expected
    go_on.set()
    with pytest.raises(MemoryError, match="no memory for a copy"):
        settled.prepare_fast_decoding(wait=True)
    assert settled.generate("a", 10, temperature=0) == expected


def test_a_head_that_does_not_pay_is_not_copied() -> None:
    generator = TextGenerator(GPTModel(BYTE_MODEL), ByteEncoding())
    generator.prepare_fast_decoding(wait=True)
    assert generator._head._fast_head is None


def test_only_a_large_head_in_32_bits_on_a_cpu_has_a_shortlist(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPTModel(BYTE_MODEL)
    assert not HalfPrecisionHead.is_worthwhile(model)  # a small one
    assert not HalfPrecisionHead.is_worthwhile(GPTModel({**BYTE_MODEL, "vocab_size": 150_000}))  # 19 MB
    assert HalfPrecisionHead.is_worthwhile(GPTModel({**BYTE_MODEL, "vocab_size": 150_000, "d_model": 64}))
    monkeypatch.setattr("src.model.decoding.fast_head.CACHE_BYTES", 0)
    assert HalfPrecisionHead.is_worthwhile(model)
    assert not HalfPrecisionHead.is_worthwhile(quantize_int8(model))
    assert not HalfPrecisionHead.is_worthwhile(copy.deepcopy(model).bfloat16())
    assert not HalfPrecisionHead.is_worthwhile(copy.deepcopy(model).to("meta"))
    monkeypatch.setattr("torch.backends.quantized.engine", "qnnpack")
    assert not HalfPrecisionHead.is_worthwhile(model)
