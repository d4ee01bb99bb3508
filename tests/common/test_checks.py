"""Checks accept numbers and nothing else."""

import math

import pytest

from src.common.checks import is_count, is_number, is_seed, is_whole_number


@pytest.mark.parametrize(
    ("value", "whole", "count", "seed", "number"),
    [
        (1, True, True, True, True),
        (0, True, False, True, True),
        (-1, True, False, False, True),
        (2**63 - 1, True, True, True, True),
        (2**63, True, True, False, True),
        pytest.param(10**400, True, True, False, False, id="too large for a float"),
        (1.0, False, False, False, True),
        (True, False, False, False, False),
        (math.nan, False, False, False, False),
        (math.inf, False, False, False, False),
        ("1", False, False, False, False),
        (None, False, False, False, False),
    ],
)
def test_checks_of_numbers(value: object, whole: bool, count: bool, seed: bool, number: bool) -> None:
    found = is_whole_number(value), is_count(value), is_seed(value), is_number(value)
    assert found == (whole, count, seed, number)
