"""A product in parts, compared with F.linear."""

import pytest
import torch
import torch.nn.functional as F

from src.model import few_rows


@pytest.mark.parametrize("n_outputs", [16, 96, 101])  # as many as parts, a multiple, and some left over
@pytest.mark.parametrize("shape", [(1, 24), (1, 1, 24), (2, 24), (1, 3, 24), (5, 24)])
@pytest.mark.parametrize("in_parts", [False, True])
def test_few_rows_equal_linear(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], n_outputs: int, in_parts: bool
) -> None:
    monkeypatch.setattr(few_rows, "MIN_ELEMENTS", 0)
    monkeypatch.setattr(few_rows, "parts_are_faster", lambda: in_parts)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(n_outputs, 24), torch.randn(n_outputs)
    for b in (bias, None):
        y = few_rows.linear(x, weight, b)
        assert y.is_contiguous()
        torch.testing.assert_close(y, F.linear(x, weight, b), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("processor", "mkl", "expected"),
    [
        ("AMD64 Family 25 Model 17 Stepping 1, AuthenticAMD", True, True),
        ("AMD64 Family 25 Model 17 Stepping 1, AuthenticAMD", False, False),
        ("Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", True, False),
    ],
)
@pytest.mark.parametrize("on_linux", [False, True])
def test_parts_are_for_mkl_on_amd(
    monkeypatch: pytest.MonkeyPatch, processor: str, mkl: bool, expected: bool, on_linux: bool
) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    monkeypatch.setattr(few_rows.Path, "is_file", lambda path: on_linux)
    monkeypatch.setattr(few_rows.Path, "read_text", lambda path, encoding: f"vendor_id\t: {processor}\n")
    monkeypatch.setattr(few_rows.platform, "processor", lambda: "x86_64" if on_linux else processor)
    assert few_rows.parts_are_faster.__wrapped__() == expected


def test_half_precision_is_not_multiplied_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_rows, "MIN_ELEMENTS", 0)
    monkeypatch.setattr(few_rows, "linear_in_parts", None)
    monkeypatch.setattr(few_rows, "parts_are_faster", lambda: True)
    x, weight = torch.randn(1, 24), torch.randn(96, 24)
    assert few_rows.linear(x.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert few_rows.linear(x, weight).dtype == torch.bfloat16
