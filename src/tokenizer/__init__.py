"""Tokenizers: GPT-2's byte pairs, byte pairs learned from a text, a word tokenizer, and the interface they share."""

from src.tokenizer.gpt2 import load_gpt2_encoding
from src.tokenizer.hugging_face import read_folder_encoding
from src.tokenizer.learning import learn_byte_pairs
from src.tokenizer.protocols.interfaces import Encoding
from src.tokenizer.stored import (
    build_word_encoding,
    describe,
    encoding_fingerprint,
    load_encoding,
    word_encoding_of,
)

__all__ = [
    "Encoding",
    "build_word_encoding",
    "describe",
    "encoding_fingerprint",
    "learn_byte_pairs",
    "load_encoding",
    "load_gpt2_encoding",
    "read_folder_encoding",
    "word_encoding_of",
]
