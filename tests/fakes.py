"""Small models, encodings and generators with known behaviour, shared by the test modules.

Fakes for Semantic Kernel are in fakes_sk.py, and a local Hugging Face hub is in fakes_hub.py.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from src.chat.session import ChatSettings
from src.checkpoint import save_checkpoint
from src.data.prompts import Message, render_conversation
from src.model.decoding.text_stream import TextStream, stop_strings
from src.model.generate import PrefixCache, TextGenerator
from src.model.gpt import GPTModel
from src.model.load_gpt2 import state_dict_from_hugging_face
from src.tokenizer import describe, load_gpt2_encoding

ENCODING = load_gpt2_encoding()
CHAT_SETTINGS = ChatSettings(temperature=0.7, top_k=40, top_p=0.9, max_tokens=20)
BYTE_MODEL = {"vocab_size": 257, "context_length": 48, "d_model": 32, "n_heads": 4, "n_layers": 3, "dropout": 0.1}
ANSWER = "Paris is the capital of France."


# --- encodings and texts


class ByteEncoding:
    """One token per UTF-8 byte, and 256 as end-of-text."""

    name, n_vocab, eot_token = "bytes", 257, 256

    def encode_ordinary(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        return bytes(tokens)


_QUOTES = ["'", '"', "\u2018", "\u2019", "\u201c", "\u201d", "'\"", ' "', '" ', "--'", "don't", "'tis"]
_DASHES = ["-", "--", "---", "/", "//", "\u2013", "\u2014", "_", "__", "_x_"]
_MARKS = [*".,;:!?%()[]{}$&*#<>=@\xa3\xab\xbb\u2026", "...", "1,000.50", "3:30", "### "]
_SPACES = [*" \n\t\r\v\f\x1c\x85\xa0\u2028\u3000\u200b\ufeff\xad", "\r\n", "\n\n", "  "]
_LETTERS = [*"aZ09\xe9\xbd\u212a\u0958\u4e2d", "\ufb01", "e\u0301", "a\u0338", "क्षि", "\u05e9\u05b8"]
_OTHERS = [*"\0\x1b\u0301\u200c\u200d\u0600\ufe0f\u20e3\ud83d\ude00\udfff", "❤\ufe0f", "👍🏽", "=\u0338"]
_RESERVED = ["<UNK>", "<ENDOFTEXT>", "<UNK", "UNK>"]

# Hypothesis strategies: pieces of text that are hard to clean, split or join, and texts made of them.
TRICKY_PIECES = st.sampled_from([*_QUOTES, *_DASHES, *_MARKS, *_SPACES, *_LETTERS, *_OTHERS, *_RESERVED])
TRICKY_TEXTS = st.lists(TRICKY_PIECES, max_size=12).map("".join) | st.text(max_size=12)


# --- models


def model_and_reference(config: dict[str, Any]) -> tuple[GPTModel, Any]:
    """Our model and transformers' GPT2LMHeadModel with the same random weights, biases and norms, in eval mode."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    reference = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config["vocab_size"],
            n_positions=config["context_length"],
            n_embd=config["d_model"],
            n_head=config["n_heads"],
            n_layer=config["n_layers"],
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
    ).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model = GPTModel(config).eval()
    model.load_state_dict(state_dict_from_hugging_face(reference.state_dict(), model.config))
    return model, reference


def answering_model(text: str) -> GPTModel:
    """A model that continues every line break with `text`: its MLP is a lookup table from a token to the next one.

    The tokens of `text` must all be different.
    """
    steps = [*ENCODING.encode_ordinary("\n" + text), ENCODING.eot_token]
    torch.manual_seed(0)
    size = {"context_length": 64, "d_model": 64, "n_heads": 1, "n_layers": 1}
    model = GPTModel({"vocab_size": 50257, **size})
    table = torch.randn(50257, 64)
    table = torch.nn.functional.normalize(table - table.mean(dim=1, keepdim=True), dim=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.wte.weight.copy_(table)
        model.ln_f.weight.fill_(10)
        block = model.h[0]
        block.ln_2.weight.fill_(1 / 8)  # back to unit vectors
        for i, (token, following) in enumerate(zip(steps[:-1], steps[1:], strict=True)):
            block.mlp.c_fc.weight[i] = 100 * table[token]
            block.mlp.c_fc.bias[i] = -90
            block.mlp.c_proj.weight[:, i] = table[following]
    return model.eval()


def save_model(path: Path, model: GPTModel, template: str | None, **metadata: Any) -> None:
    """Save a checkpoint of a model with GPT-2's encoding; without a template it is a raw model."""
    content = {"model": model.state_dict(), "config": asdict(model.config), "stage": "test", "template": template}
    save_checkpoint(path, {**content, "tokenizer": describe(ENCODING), **metadata})


# --- generators and chats


class ScriptedGenerator(TextGenerator):
    """Streams scripted answers in order, and records what it was called with.

    An answer is a text, or a list of texts, exceptions to raise and functions to call.
    """

    def __init__(self, *answers: Any, context_length: int = 64) -> None:
        torch.manual_seed(0)
        size = {"context_length": context_length, "d_model": 8, "n_heads": 1, "n_layers": 1}
        super().__init__(GPTModel({"vocab_size": 50257, **size}), ENCODING)
        self.answers = list(answers)
        self.prompts: list[list[int]] = []
        self.settings: list[dict[str, Any]] = []
        self.prefix_caches: list[PrefixCache | None] = []
        self.n_generated = 0

    @property
    def prompt_texts(self) -> list[str]:
        return [ENCODING.decode(prompt) for prompt in self.prompts]

    def stream(self, prompt, max_new_tokens=100, *, stop=None, prefix_cache=None, **settings):
        self.prompts.append(list(prompt))
        self.settings.append({"max_new_tokens": max_new_tokens, **settings})
        self.prefix_caches.append(prefix_cache)
        answer = self.answers.pop(0)
        tokens = self._tokens([answer] if isinstance(answer, str) else answer, max_new_tokens)
        return TextStream(tokens, ENCODING, max_new_tokens, stop_strings(stop))

    def _tokens(self, parts: Sequence[Any], limit: int) -> Iterator[int]:
        for part in parts:
            if isinstance(part, BaseException):
                raise part
            if callable(part):
                part()
                continue
            for token in ENCODING.encode_ordinary(part):
                if not limit:
                    return
                limit -= 1
                self.n_generated += 1
                yield token


def stream_settings(settings: ChatSettings) -> dict[str, Any]:
    """The keywords that a chat with these settings passes to TextGenerator.stream."""
    keywords = asdict(settings)
    return {"max_new_tokens": keywords.pop("max_tokens"), **keywords}


def rendered_ids(*texts: str, system: str | None = None) -> list[int]:
    """The prompt of a conversation, as training renders it. The user's and the assistant's texts alternate."""
    roles = ("user", "assistant") * len(texts)
    messages = [Message("system", system)] if system else []
    messages += [Message(role, text) for role, text in zip(roles, texts, strict=False)]
    return render_conversation(messages, ENCODING)[0]


def rendered(*texts: str, system: str | None = None) -> str:
    """The prompt of a conversation as text; an answer ends with end-of-text."""
    return ENCODING.decode(rendered_ids(*texts, system=system))


def stream_that_fails_once(pieces: list[str], error: BaseException) -> Callable[..., Any]:
    """A TextGenerator.stream whose first answer is `pieces` and then `error`; later answers are the model's own."""
    real_stream, failed = TextGenerator.stream, []

    def broken() -> Iterator[str]:
        yield from pieces
        raise error

    def stream(self: TextGenerator, *args: Any, **settings: Any) -> Any:
        if failed:
            return real_stream(self, *args, **settings)
        failed.append(True)
        return FakeTextStream(broken())

    return stream


class FakeTextStream:
    """The pieces as a stream of text."""

    finish_reason = None

    def __init__(self, pieces: Iterator[str]) -> None:
        self.ids: list[int] = []
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        return self._pieces


@contextmanager
def terminal_with_keys(keys: str = "") -> Iterator[None]:
    """A terminal on which these keys are pressed."""
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(keys)
        yield
