"""The benchmarks refuse impossible flags before they measure anything."""

from importlib import import_module

import pytest

WITH_ROUNDS = ("decode_modes", "decode_speed", "draft_tokens", "scaling", "sk_startup", "token_cache", "training_speed",
               "tuning_speed")  # fmt: skip


@pytest.mark.parametrize("name", WITH_ROUNDS)
def test_rounds_must_be_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match="^--rounds must be at least 1, got 0$"):
        import_module(f"benchmarks.{name}").main(["--rounds", "0"])
