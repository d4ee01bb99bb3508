"""python chat.py: talk to a model in the terminal; /help lists the commands.

With --prompt it answers once, and only the answer goes to stdout. Lines piped in are answered one after the other.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from src.chat_session import ChatSession, ChatSettings
from src.chat_terminal import Screen, piped_lines, session_commands, talk, typed_lines
from src.checkpoint import load_base
from src.cli import BAD_USAGE, DONE, INTERRUPTED, flag, parse, run
from src.model.generate import TextGenerator
from src.model.quantize import quantize_int8
from src.runtime import choose_runtime
from src.tokenizer import load_encoding

# The defaults of the flags.
TEMPERATURE = 0.7
TOP_K = 40
TOP_P = 0.9
MAX_TOKENS = 150
REPETITION_PENALTY = 1.0
MODELS = ("dpo", "sft", "finetuned", "pretrained", "scratch")  # what --model auto takes, the first that is there


@dataclass(frozen=True, kw_only=True)
class Config:
    model: str = flag("auto", f"auto (the first of {', '.join(MODELS)} that is there), one of these, or a path")
    temperature: float = flag(TEMPERATURE, "0 takes the likeliest token, above 1 is more varied than the model")
    top_k: int | None = flag(TOP_K, "choose among this many likeliest tokens; none is off")
    top_p: float | None = flag(TOP_P, "choose among the likeliest tokens with this probability together; none is off")
    max_tokens: int = flag(MAX_TOKENS, "most tokens in an answer")
    repetition_penalty: float = flag(REPETITION_PENALTY, "above 1 repeats itself less")
    seed: int | None = flag(None, "makes answers repeatable (default: a new seed for each answer)")
    prompt: str = flag("", "answer this once, on stdout, and leave (default: a chat)")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "where to compute")
    quantize: Literal["none", "int8"] = flag("none", "int8: a quarter of the memory, faster on a CPU")

    def __post_init__(self) -> None:
        self.settings()  # refuses bad values
        if self.quantize == "int8" and self.device not in ("auto", "cpu"):
            raise ValueError(f"--quantize int8 is for the CPU; leave --device {self.device} out")

    def settings(self) -> ChatSettings:
        return ChatSettings(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )


def main(argv: Sequence[str] | None = None) -> int:
    config, given = parse(Config, argv, __doc__)
    once = "prompt" in given
    if once and not config.prompt.strip():
        print("chat.py: --prompt is empty; see python chat.py --help", file=sys.stderr)
        return BAD_USAGE
    screen = Screen(interactive=not once and _on_terminal())
    try:
        with screen.warnings_as_notes():
            session = open_session(config, screen)
            if once:
                screen.answer(session.reply(config.prompt), label="")
            else:
                chat(session, screen)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def open_session(config: Config, screen: Screen) -> ChatSession:
    """Load the model that the config names, and say which it is. Raises what loading raises."""
    base = load_base(config.model, MODELS, load_encoding)
    device = choose_runtime("cpu" if config.quantize == "int8" else config.device, "fp32").device
    model = quantize_int8(base.model) if config.quantize == "int8" else base.model
    size = base.model.config
    screen.note(
        f"{base.path}, {base.why}: {size.parameter_count()[0] / 1e6:.1f}M parameters, "
        f"context of {size.context_length} tokens, on {device.type}{', in 8 bits' * (config.quantize == 'int8')}"
    )
    try:
        generator = TextGenerator(model, base.encoding, device)
        template = base.metadata.get("template")
        return ChatSession(generator, template=template, settings=config.settings(), notify=screen.note)
    except ValueError as error:
        raise ValueError(f"{base.path}: {error}") from error


def chat(session: ChatSession, screen: Screen) -> None:
    commands = session_commands(session)
    if not screen.interactive:
        talk(session.reply, screen, commands, piped_lines())
        return
    # The program's own SIGTERM handler acts as Ctrl-C, which here would stop an answer and not the chat.
    signal.signal(signal.SIGTERM, _leave)
    screen.note("/help lists the commands, Ctrl-D leaves")
    talk(session.reply, screen, commands, typed_lines(screen, commands))


def _leave(*_: object) -> None:
    sys.exit(INTERRUPTED)


def _on_terminal() -> bool:
    streams = (sys.stdin, sys.stdout)
    return all(stream is not None and stream.isatty() for stream in streams) and os.environ.get("TERM") != "dumb"


if __name__ == "__main__":
    run(main)
