"""How both chats begin: their flags, the model behind them, and whether a person sits there."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from src.chat.session import ChatSettings
from src.checkpoint import MODEL_HELP, LoadedModel, load_base
from src.cli import flag
from src.common.messages import naming_file
from src.model.generate import TextGenerator
from src.model.quantize import quantize_int8
from src.runtime import choose_runtime


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Which model a chat loads, and where it runs."""

    model: str = flag("auto", MODEL_HELP)
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "where to compute")
    quantize: Literal["none", "int8"] = flag("none", "int8: a quarter of the memory, faster on a CPU")


@dataclass(frozen=True, kw_only=True)
class ChatFlags(ChatSettings, ModelFlags):  # --help lists the fields of the last base first
    """The flags of a chat: the model, every setting, and the prompt. Raises ValueError naming every bad value."""

    prompt: str = flag("", "answer this once, on stdout, and leave (default: a chat)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantize == "int8" and self.device not in ("auto", "cpu"):
            raise ValueError(f"--quantize int8 is for the CPU; leave --device {self.device} out")

    def settings(self) -> ChatSettings:
        return ChatSettings(**{setting.name: getattr(self, setting.name) for setting in fields(ChatSettings)})


@dataclass(frozen=True)
class LoadedChat:
    """A model that can be talked to, the checkpoint that it comes from, and where it computes."""

    generator: TextGenerator
    base: LoadedModel
    device: str

    @property
    def template(self) -> str | None:
        return self.base.metadata.get("template")


def load_chat_model(flags: ChatFlags, notify: Callable[[str], None], *, interactive: bool) -> LoadedChat:
    """Load the model that the flags name, and say which it is. Raises what loading raises.

    interactive: it will give many answers, which is prepared in the background.
    """
    base = load_base(flags.model)
    in_8_bits = flags.quantize == "int8"
    device = choose_runtime("cpu" if in_8_bits else flags.device, "fp32").device
    size, where = base.model.config, device.type + ", in 8 bits" * in_8_bits
    notify(
        f"{base.path}, {base.reason}: {size.parameter_count()[0] / 1e6:.1f}M parameters, "
        f"context of {size.context_length} tokens, on {where}"
    )
    model = quantize_int8(base.model) if in_8_bits else base.model
    with naming_file(base.path):
        generator = TextGenerator(model, base.encoding, device)
    if interactive:
        generator.prepare_fast_decoding()
    return LoadedChat(generator, base, where)


def is_interactive() -> bool:
    """Whether a person sits there, at a terminal that can do more than print."""
    streams = (sys.stdin, sys.stdout)
    return all(stream is not None and stream.isatty() for stream in streams) and os.environ.get("TERM") != "dumb"
