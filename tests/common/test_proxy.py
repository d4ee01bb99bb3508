"""Proxies that the environment names."""

import pytest

from src.common.proxy import proxy_problem


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:7890", "set it to socks5://127.0.0.1:7890 or unset it"),
        ("all_proxy", "SOCKS://me:secret@host:1/", "set it to socks5://host:1/ or unset it"),
        ("HTTPS_PROXY", "ftp://host", "correct it or unset it"),
    ],
)
def test_an_unusable_proxy_is_named_without_its_password(monkeypatch, name, value, problem):
    monkeypatch.setenv(name, value)
    expected = f"{name}={value.partition('://')[0]}://... is not a proxy that can be used; {problem}"
    assert proxy_problem() == expected


@pytest.mark.parametrize("value", ["", "127.0.0.1:7890", "http://host:1", "socks5h://host:1", "HTTPS://host"])
def test_usable_proxies_are_accepted(monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)
    monkeypatch.setenv("NO_PROXY", "ftp://x")
    assert proxy_problem() is None
