"""Recognises passwords, PINs, card numbers and other secrets, which must not be kept."""

import re

_NAMES = re.compile(
    r"\b(?:pass[ -]?(?:words?|codes?|phrases?|wd)|pwd?|my pass is|pins?|cv[vc]2?|tokens?|iban|ssn|log-?ins?|credentials"
    r"|(?:api|secret|private|access|licence|license|recovery|encryption|ssh) keys?|secrets?"
    r"|social security|(?:insurance|passport|card|account) number|(?:credit|debit|bank) ?card|bank account is"
    r"|(?:door|entry|alarm|safe|lock|gate|recovery|security|backup|unlock|access|verification) codes?"
    r"|combination (?:is|of|to|for)|(?:seed|recovery|backup|wallet) phrase|safe opens)\b",
    re.IGNORECASE,
)
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,}", re.IGNORECASE)
_KEY = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}\b")


def looks_secret(text: str) -> bool:
    """Whether a text names a secret, such as a password, or contains a card number, an IBAN or a long key."""
    return any(pattern.search(text) for pattern in (_NAMES, _CARD, _IBAN, _KEY))
