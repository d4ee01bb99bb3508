"""Checks of values from the user or a file. A bool is never a number here."""

import sys
from typing import TypeGuard


def is_whole_number(value: object) -> TypeGuard[int]:
    """Whether the value is an int."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: object) -> TypeGuard[int]:
    """Whether the value is an int of at least 1."""
    return is_whole_number(value) and value >= 1


def is_seed(value: object) -> TypeGuard[int]:
    """Whether the value is an int that PyTorch's generators accept as a seed."""
    return is_whole_number(value) and 0 <= value < 2**63


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether the value is an int or float within the range of finite floats."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
