"""Recognises passwords, PINs, card numbers and other secrets, which must not be kept."""

import re

# "my PIN", "the door code of our house"
_NAMES = re.compile(
    r"\b(?:pass[ -]?(?:words?|codes?|phrases?|wd)|pwd?|my pass is|pins?|cv[vc]2?|tokens?|iban|ssn|log-?ins?|credentials"
    r"|(?:api|secret|private|access|licence|license|recovery|encryption|ssh) keys?|secrets?"
    r"|social security|(?:insurance|passport|card|account) number|(?:credit|debit|bank) ?card|bank account is"
    r"|(?:door|entry|alarm|safe|lock|gate|recovery|security|backup|unlock|access|verification) codes?"
    r"|combination (?:is|of|to|for)|(?:seed|recovery|backup|wallet) phrase|safe opens)\b",
    re.IGNORECASE,
)
# "4111 1111 1111 1111"
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")
# "DE89 3704 0044 0532 0130 00"
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,}", re.IGNORECASE)
# "sk-live-9f8e7d6c5b4a": a long word with letters and digits
_KEY = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}\b")


def looks_secret(text: str) -> bool:
    """Whether a text names a secret, such as a password, or contains a card number, an IBAN or a long key."""
    return any(pattern.search(text) for pattern in (_NAMES, _CARD, _IBAN, _KEY))
