"""How both chats start: their flags, the model, and whether a user is at the terminal."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar

from src.chat.session import ChatSettings
from src.checkpoint import MODEL_HELP, LoadedModel, load_base
from src.cli import Parser, flag, parse
from src.common.messages import naming_file
from src.common.terminal import is_terminal
from src.model.generate import TextGenerator
from src.model.quantize import quantize_int8
from src.runtime import choose_runtime


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Which model a chat loads, and where it runs."""

    model: str = flag("auto", MODEL_HELP, path=True)
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "device to run on")
    quantize: Literal["none", "int8"] = flag("none", "int8 needs less memory (a third at 124M) and is faster on a CPU")


@dataclass(frozen=True, kw_only=True)
class ChatFlags(ChatSettings, ModelFlags):  # --help lists the fields of the last base first
    """The flags of a chat: the model, every setting, and the prompt. Raises ValueError naming every bad value."""

    prompt: str = flag("", "print the answer to this prompt and exit; - reads it from stdin (default: start a chat)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantize == "int8" and self.device not in ("auto", "cpu"):
            raise ValueError(f"--quantize int8 is for the CPU; remove --device {self.device}")

    def settings(self) -> ChatSettings:
        return ChatSettings(**{setting.name: getattr(self, setting.name) for setting in fields(ChatSettings)})


F = TypeVar("F", bound=ChatFlags)


def parse_chat_flags(cls: type[F], argv: Sequence[str] | None, description: str) -> tuple[F, set[str]]:
    """The flags and the names of those that the user set. Bad usage, such as an empty --prompt, exits with code 2."""
    flags, given = parse(cls, argv, description)
    if "prompt" in given and not flags.prompt.strip():
        Parser(description).error("--prompt is empty")
    return flags, given


@dataclass(frozen=True)
class LoadedChatModel:
    """A model ready to chat, the checkpoint it was loaded from, and the device it runs on."""

    generator: TextGenerator
    checkpoint: LoadedModel
    device: str

    @property
    def template(self) -> str | None:
        return self.checkpoint.metadata.get("template")

    def describe(self) -> str:
        """A table of the model's properties."""
        checkpoint, config = self.checkpoint, self.checkpoint.model.config
        total, without_embeddings = config.parameter_count()
        rows = {
            "model": f"{checkpoint.path}, {checkpoint.reason}",
            "stage": checkpoint.metadata.get("stage", "unknown"),
            "parameters": f"{total:,}, {without_embeddings:,} without the embeddings",
            "context": f"{config.context_length} tokens",
            "tokenizer": f"{checkpoint.encoding.name}, {checkpoint.encoding.n_vocab:,} tokens",
            "template": self.template or "none: a raw model, which continues text",
            "device": self.device,
        }
        return "\n".join(f"{name:<12}{value}" for name, value in rows.items())


def load_chat_model(flags: ChatFlags, notify: Callable[[str], None], *, interactive: bool) -> LoadedChatModel:
    """Load the model that the flags select, and notify the user which one it is.

    interactive: prepares faster decoding in the background, which pays off over many answers.

    Raises FileNotFoundError or ValueError as load_base does.
    """
    checkpoint = load_base(flags.model)
    is_int8 = flags.quantize == "int8"
    device = choose_runtime("cpu" if is_int8 else flags.device, "fp32").device
    device_name = f"{device.type}, int8" if is_int8 else device.type
    config = checkpoint.model.config
    notify(
        f"{checkpoint.path}, {checkpoint.reason}: {config.parameter_count()[0] / 1e6:.1f}M parameters, "
        f"context of {config.context_length} tokens, on {device_name}"
    )
    if is_int8:
        checkpoint = replace(checkpoint, model=quantize_int8(checkpoint.model))  # releases the fp32 weights
    with naming_file(checkpoint.path):
        generator = TextGenerator(checkpoint.model, checkpoint.encoding, device)
    if interactive:
        generator.prepare_fast_decoding()
    return LoadedChatModel(generator, checkpoint, device_name)


def is_interactive() -> bool:
    """Whether stdin and stdout are an interactive terminal."""
    return is_terminal(sys.stdin) and is_terminal(sys.stdout)
