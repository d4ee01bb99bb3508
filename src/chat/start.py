"""How both chats start: the model, and what the first screen says about it.

PyTorch is imported by the functions that need it, so that "Loading ..." appears at once.
"""

import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from src.chat.flags import ModelFlags
from src.common.messages import naming_file
from src.stages import BEST, find_model, here_or_beside_scripts

if TYPE_CHECKING:
    from src.checkpoint import LoadedModel
    from src.checkpoint.training_examples import TrainingExamples
    from src.model.generate import TextGenerator

SESSIONS = Path("logs/sessions")
_MAX_QUESTION = 50  # characters of a question that the first screen suggests
_ONE_THREAD_PARAMETERS = 5e6  # a model up to this size answers as fast with one thread: see _choose_threads


@dataclass(frozen=True)
class LoadedChatModel:
    """A model ready to chat, the checkpoint it was loaded from, and the device it runs on."""

    generator: "TextGenerator"
    checkpoint: "LoadedModel"
    device: str

    @property
    def template(self) -> str | None:
        return self.checkpoint.metadata.get("template")

    @property
    def examples(self) -> "TrainingExamples":
        from src.checkpoint.training_examples import examples_of

        return examples_of(self.checkpoint.metadata)

    @property
    def why_no_examples(self) -> str:
        """The reason, if `examples` is empty."""
        if self.template is None:
            return "This is a raw model: it was trained on running text, not on questions and answers."
        return "The checkpoint does not record the questions and answers that it was trained on."

    def introduction(self) -> list[str]:
        """What the user should know before the first message: which model this is, and what it can answer."""
        config = self.checkpoint.model.config
        parameters = f"{config.parameter_count()[0] / 1e6:.1f}M parameters"
        name = f"{short_path(self.checkpoint.path)}{self._reason}"
        lines = [f"Model: {name}, {parameters}, {config.context_length}-token context, {self.device}"]
        examples = self.examples
        questions = [text for text in examples.questions if len(text) <= _MAX_QUESTION and "\n" not in text]
        if self.template and examples.count and questions:
            listed = " or ".join(f'"{text}"' for text in questions[:2])
            known = f"It knows {examples.count} questions (/questions lists them), for example {listed}"
            lines.append(f"{known}; it makes up all other answers")
        return lines

    def describe(self) -> str:
        """A table of the model's properties."""
        checkpoint, config = self.checkpoint, self.checkpoint.model.config
        total, without_embeddings = config.parameter_count()
        rows = {
            "model": f"{checkpoint.path}{self._reason}",
            "stage": checkpoint.metadata.get("stage", "unknown"),
            "parameters": f"{total:,} ({without_embeddings:,} without the embeddings)",
            "context": f"{config.context_length} tokens",
            "tokenizer": f"{checkpoint.encoding.name}, {checkpoint.encoding.n_vocab:,} tokens",
            "template": self.template or "none: a raw model, which continues text",
            "device": self.device,
        }
        return "\n".join(f"{name:<12}{value}" for name, value in rows.items())

    @property
    def _reason(self) -> str:
        """Why this model was chosen, in parentheses; "" if the user chose it."""
        reason = self.checkpoint.reason
        return "" if reason.endswith("as requested") else f" ({reason})"


def sessions_folder() -> Path:
    """The folder of the sessions, the memory and the typed lines: here or, if there is none, next to the scripts."""
    return here_or_beside_scripts(SESSIONS)


def announce_loading(flags: ModelFlags, *, interactive: bool) -> None:
    """Find the model and, on a terminal, say that it is being loaded. Raises FileNotFoundError as find_model does.

    interactive: the chat writes everything to stdout.
    """
    path, _ = find_model(flags.model, beside_scripts=True)
    stream = sys.stdout if interactive else sys.stderr
    if stream and stream.isatty():
        print(f"Loading {short_path(path)} ...", file=stream, flush=True)


def load_chat_model(flags: ModelFlags, *, interactive: bool) -> LoadedChatModel:
    """Load the model that the flags select.

    interactive: prepares faster decoding in the background, which pays off over many answers.

    Raises FileNotFoundError or ValueError as load_base does.
    """
    from src.checkpoint import load_base
    from src.model.generate import TextGenerator
    from src.model.quantize import quantize_int8
    from src.runtime import choose_runtime

    checkpoint = load_base(flags.model, beside_scripts=True)
    is_int8 = flags.quantize == "int8"
    device = choose_runtime("cpu" if is_int8 else flags.device, "fp32").device
    if is_int8:
        checkpoint = replace(checkpoint, model=quantize_int8(checkpoint.model))  # releases the fp32 weights
    with naming_file(checkpoint.path):
        generator = TextGenerator(checkpoint.model, checkpoint.encoding, device)
    _choose_threads(checkpoint.model.config.parameter_count()[0])
    if interactive:
        generator.prepare_fast_decoding()
    return LoadedChatModel(generator, checkpoint, device.type.upper() + (", int8" if is_int8 else ""))


def _choose_threads(parameters: int) -> None:
    """Use one thread for a small model, and PyTorch's number for others. OMP_NUM_THREADS, if set, stays in force.

    A small model is no faster with more threads: each operation is too short. And while other programs keep the cores
    busy, threads wait for each other many times per token: next to two busy loops on two cores, "tiny" took 1.7 times
    as long with two threads as with one.
    """
    import torch

    threads = _default_threads()  # asked before the first change
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if parameters <= _ONE_THREAD_PARAMETERS else threads)


@cache
def _default_threads() -> int:
    import torch

    return torch.get_num_threads()


def short_path(path: Path) -> Path:
    """A checkpoint's folder, instead of its best model in it."""
    return path.parent if path.name == BEST else path
