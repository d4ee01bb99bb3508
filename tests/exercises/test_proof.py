"""The checkers of the exercises' text find what is wrong."""

import pytest

from tests.exercises.proof import example_problems, layout_problems, number_problems

SAMPLE = """
## 1. Title
```python
def f(x: int) -> int:
```
```python
>>> f(2)
4
```
`f(3) = 6`, `n = 3`, `a = b`, `softmax(x, dim=-1)`, `1 / 3 = 0.333`, `10**6 = 1,000,000`, `torch.tensor(2e30) = 2.0e30`
```bash
python -m exercises.check 1
```
<details>
<summary>Hint 1</summary>

Twice.

</details>
"""


def f(x: int) -> int:
    return 2 * x


def all_problems(text: str) -> list[str]:
    return [*example_problems(text, {"f": f}), *number_problems(text, {"f": f}), *layout_problems(text, {1: f})]


def test_a_correct_text_passes() -> None:
    assert all_problems(SAMPLE) == []


@pytest.mark.parametrize(
    ("piece", "other"),
    [
        ("\n4\n", "\n5\n"),
        ("f(2)", "g(2)"),
        ("f(3) = 6", "f(3) = 7"),
        ("f(3) = 6", "f(3)=7"),
        ("f(3) = 6", "g(3) = 6"),
        ("`f(3) = 6`", "6.5"),
        ("`f(3) = 6`", "6,500"),
        ("0.333", "0.334"),
        ("1,000,000", "1,000,001"),
        ("2.0e30", "2.1e30"),
        ("## 1.", "## 2."),
        ("(x: int)", "(x)"),
        ("check 1", "check 2"),
        (">>> ", ""),
        ("Twice.", ""),
        ("<details>", "<p>"),
    ],
)
def test_a_wrong_text_is_found(piece: str, other: str) -> None:
    assert piece in SAMPLE
    assert all_problems(SAMPLE.replace(piece, other)) != []
