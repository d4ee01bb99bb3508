"""Tokenizers: GPT-2's own byte-pair encoding, and what every tokenizer here has in common."""

from src.tokenizer.gpt2 import load_gpt2_encoding
from src.tokenizer.protocols.interfaces import Encoding, describe, fingerprint

__all__ = ["Encoding", "describe", "fingerprint", "load_gpt2_encoding"]
