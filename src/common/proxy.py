"""Proxies that the environment names."""

import os

_USABLE = {"http", "https", "socks4", "socks4a", "socks5", "socks5h"}


def proxy_problem() -> str | None:
    """A sentence on a proxy variable that no client can use, with the fix; None if there is none.

    GNOME sets ALL_PROXY to an address that begins with socks://, which does not say which version of SOCKS it is.
    """
    for name, value in os.environ.items():
        scheme, separator, rest = value.partition("://")
        is_proxy = name.lower() in {"http_proxy", "https_proxy", "all_proxy"}
        if is_proxy and separator and scheme.lower() not in _USABLE:
            instead = f"set it to socks5://{rest.rpartition('@')[2]}" if scheme.lower() == "socks" else "correct it"
            return f"{name}={scheme}://... is not a proxy that can be used; {instead} or unset it"
    return None
