"""Demonstrations that teach one idea each, in the terminal: no model, no network, about two seconds.

Without a name this lists them; with one or more names it runs those, and `all` runs them all.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("src.intuition.__main__")

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from src.cli import Parser
from src.intuition.attention_by_hand import PICTURE, attention
from src.intuition.causal_mask import causal_mask
from src.intuition.compression import compression
from src.intuition.custom_tokenizers import byte_pairs, characters, words
from src.intuition.embeddings import embeddings
from src.intuition.fine_tuning import fine_tuning
from src.intuition.gradient_descent import gradient_descent
from src.intuition.mlp import mlp
from src.intuition.next_word import next_word
from src.intuition.preference_step import preference_step
from src.intuition.response_mask import response_mask
from src.intuition.sampling_bars import sampling
from src.intuition.softmax import show_softmax
from src.intuition.splitting import splitting
from src.program import DONE

# In reading order.
DEMONSTRATIONS: dict[str, tuple[str, Callable[..., None]]] = {
    "characters": ("text as numbers: one for each character", characters),
    "words": ("one number for each word, and what happens to new words", words),
    "byte-pairs": ("GPT-2's way: pieces learned by merging, step by step", byte_pairs),
    "splitting": ("where GPT-2 splits a text before it merges, and why", splitting),
    "next-word": ("a language model in ten lines; loss and perplexity", next_word),
    "softmax": ("from scores to probabilities", show_softmax),
    "gradient-descent": ("how a model learns: the loss falls step by step", gradient_descent),
    "compression": ("prediction is compression: the bits of a text", compression),
    "embeddings": ("a vector for each token, and what similar ones share", embeddings),
    "attention": ("three tokens attend to each other, every number shown", attention),
    "causal-mask": ("why no token may look ahead, and what that buys", causal_mask),
    "mlp": ("what a layer computes at one position", mlp),
    "sampling": ("temperature, top-k and top-p as bars", sampling),
    "fine-tuning": ("from a model that continues a text to one that answers", fine_tuning),
    "response-mask": ("what instruction tuning (SFT) learns from", response_mask),
    "preference-step": ("what one step of DPO does to two answers", preference_step),
}

_GROUPS = {  # the first demonstration of each group
    "characters": "From text to tokens",
    "next-word": "How a model predicts the next token, and how it learns",
    "embeddings": "Inside GPT-2, in the order of its computation",
    "fine-tuning": "From a text model to an assistant",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named demonstrations, or list all of them if no name is given.

    Exits with code 2 and one line on stderr if a name or flag is wrong. Raises OSError if the picture can't be written.
    """
    parser = Parser(__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"all, or some of: {', '.join(DEMONSTRATIONS)}")
    parser.add_argument(
        "--out", metavar="PATH", type=Path, help=f"where attention saves its picture, a .png (default: {PICTURE})"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="MODEL",
        help="byte-pairs and compression: show your own model, a path or a name such as scratch",
    )
    parser.add_argument("--text", metavar="SENTENCE", help="the sentence that is shown with --checkpoint")
    flags = parser.parse_args(argv)
    names = list(DEMONSTRATIONS) if "all" in flags.names else flags.names
    if problem := _problem(flags.names, names, flags):
        parser.error(problem)
    try:
        _show(names, flags)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; the flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _problem(given: Sequence[str], names: Sequence[str], flags: Namespace) -> str:
    """What is wrong with the command line, or an empty string."""
    known = ["all", *DEMONSTRATIONS]
    for name in given:
        if name not in known:
            near = get_close_matches(name.lower(), known, 1, 0.5)
            hint = f" (did you mean {near[0]}?)" if near else f"; choose from {', '.join(known)}"
            return f"there is no demonstration {name!r}{hint}"
    if flags.out is not None and "attention" not in names:
        return "--out needs attention among the names: no other demonstration draws a picture"
    if flags.out is not None and flags.out.suffix.lower() != ".png":
        return f"--out must be a file name ending in .png, got {str(flags.out)!r}"
    if flags.checkpoint is not None and not {"byte-pairs", "compression"} & set(names):
        return "--checkpoint needs byte-pairs or compression among the names: no other demonstration reads a model"
    if flags.text is not None and not (flags.checkpoint and flags.text.strip()):
        return "--text needs a sentence and --checkpoint: the model that the sentence is for"
    return ""


def _show(names: Sequence[str], flags: Namespace) -> None:
    if not names:
        _list_all()
    for name in names:
        demonstrate = DEMONSTRATIONS[name][1]
        print()
        if name == "attention":
            demonstrate(flags.out or PICTURE)
        elif name == "byte-pairs" and flags.checkpoint is not None:
            from src.intuition.own_byte_pairs import SENTENCE, own_byte_pairs  # imports PyTorch

            own_byte_pairs(flags.checkpoint, flags.text or SENTENCE)
        elif name == "compression" and flags.checkpoint is not None:
            from src.intuition.own_compression import PASSAGE, own_compression  # imports PyTorch

            own_compression(flags.checkpoint, flags.text or PASSAGE)
        else:
            demonstrate()
    if len(names) == 1:
        print(f"Next: {_command_after(names[0])}")


def _command_after(name: str) -> str:
    order = list(DEMONSTRATIONS)
    following = order[order.index(name) + 1 :]
    return f"python -m src.intuition {following[0]}" if following else "python -m exercises.start"


def _list_all() -> None:
    print("Demonstrations, in reading order")
    for name, (line, _) in DEMONSTRATIONS.items():
        if name in _GROUPS:
            print(f"\n{_GROUPS[name]}:")
        print(f"  {name:<18}{line}")
    print("\nRun one:  python -m src.intuition characters\nRun all:  python -m src.intuition all")
