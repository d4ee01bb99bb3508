"""The flags of both chats. Imports no PyTorch, so that --help and a wrong flag are answered at once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from src.cli import Parser, flag, flag_name, parse
from src.common.checks import is_count, is_seed
from src.model.decoding.settings import SamplingSettings, option, with_default
from src.stages import MODEL_HELP


@dataclass(frozen=True, kw_only=True)
class ChatSettings(SamplingSettings):
    """How answers are generated. The chats derive their flags and commands, with the defaults, from the fields.

    Raises ValueError naming every bad value at once.
    """

    temperature: float = with_default("temperature", 0.7)
    top_k: int | None = with_default("top_k", 40)
    top_p: float | None = with_default("top_p", 0.9)
    max_tokens: int = option(
        150,
        "maximum number of tokens in an answer",
        is_valid=is_count,
        expected="a whole number of at least 1",
        aliases=("tokens",),
    )
    seed: int | None = option(
        None,
        "makes answers repeatable; none draws a new seed for each answer",
        is_valid=lambda value: value is None or is_seed(value),
        expected="a whole number from 0 to 2**63 - 1, or None for a new one each time",
    )


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Which model a chat loads, and where it runs."""

    model: str = flag("auto", MODEL_HELP, path=True)
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "device to run on")
    quantize: Literal["none", "int8"] = flag(
        "none", "int8 needs less memory (a third as much at 124M) and is faster on a CPU"
    )


@dataclass(frozen=True, kw_only=True)
class ChatFlags(ChatSettings, ModelFlags):  # --help lists the fields of the last base first
    """The flags of a chat: the model, every setting, and the prompt. Raises ValueError naming every bad value."""

    verbose: bool = flag(False, "show the speed of answers")
    prompt: str = flag(
        "",
        "print the answer to this prompt and exit; - reads it from stdin (default: start a chat)",
        positional=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantize == "int8" and self.device not in ("auto", "cpu"):
            raise ValueError(f"--quantize int8 is for the CPU; remove --device {self.device}")

    @classmethod
    def problem(cls, name: str, value: Any) -> str | None:
        """As for every setting, but as flags are written: --top-k, and none for None."""
        found = super().problem(name, value)
        return found and found.replace(name, flag_name(name), 1).replace(" None", " none")

    def settings(self) -> ChatSettings:
        return ChatSettings(**{setting.name: getattr(self, setting.name) for setting in fields(ChatSettings)})


F = TypeVar("F", bound=ChatFlags)


def parse_chat_flags(cls: type[F], argv: Sequence[str] | None, description: str) -> tuple[F, set[str]]:
    """The flags and the names of those that the user set. Bad usage, such as an empty --prompt, exits with code 2."""
    flags, given = parse(cls, argv, description)
    if "prompt" in given and not flags.prompt.strip():
        Parser(description).error("--prompt is empty")
    return flags, given
