"""The logger prints nothing."""

import logging

import pytest

from src.tokenizer.core.logging import get_logger


def test_the_logger_prints_nothing_by_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    get_logger().warning("unheard")
    assert capsys.readouterr().err == ""
