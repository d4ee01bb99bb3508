"""The logger prints nothing unless asked to."""

import logging
from collections.abc import Iterator

import pytest

from src.tokenizer.core.logging import get_logger, show_log


@pytest.fixture(autouse=True)
def restored_logger() -> Iterator[None]:
    logger = get_logger()
    handlers, level = [*logger.handlers], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_the_logger_prints_nothing_by_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    get_logger().warning("unheard")
    assert capsys.readouterr().err == ""


def test_show_log_twice_prints_once(capsys: pytest.CaptureFixture[str]) -> None:
    show_log(logging.DEBUG)
    show_log()
    get_logger().info("heard")
    get_logger().debug("unheard")
    assert capsys.readouterr().err == "src.tokenizer: heard\n"
