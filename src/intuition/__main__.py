"""python -m src.intuition: demonstrations that teach, one idea each, in the terminal.

Without a name they are listed; with one or more they run, and `all` runs all. No model, no network, seconds.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from src.intuition.attention_by_hand import PICTURE, attention
from src.intuition.causal_mask import causal_mask
from src.intuition.custom_tokenizers import byte_pairs, characters, words
from src.intuition.next_word import next_word
from src.intuition.preference_step import preference_step
from src.intuition.response_mask import response_mask
from src.intuition.sampling_bars import sampling
from src.intuition.softmax import show_softmax
from src.intuition.splitting import splitting

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
PROGRAM = "src.intuition"

# In the order to read them.
DEMONSTRATIONS: dict[str, tuple[str, Callable[..., None]]] = {
    "characters": ("text as numbers, one for each character", characters),
    "words": ("one for each word, and what happens to new words", words),
    "byte-pairs": ("GPT-2's way: pieces learned by merging, step by step", byte_pairs),
    "splitting": ("where GPT-2 cuts a text before it merges, and why", splitting),
    "next-word": ("a language model in ten lines; loss and perplexity", next_word),
    "softmax": ("from scores to probabilities", show_softmax),
    "attention": ("three tokens look at each other, every number shown", attention),
    "causal-mask": ("why no token may look ahead, and what it buys", causal_mask),
    "sampling": ("temperature, top-k and top-p as bars", sampling),
    "response-mask": ("what instruction tuning (SFT) learns from", response_mask),
    "preference-step": ("what one step of DPO does to two answers", preference_step),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named demonstrations. Leaves with exit code 2 and one line on stderr where a name or flag is wrong.

    Raises OSError where the picture can't be written.
    """
    parser = _parser()
    given = parser.parse_args(argv)
    names = list(DEMONSTRATIONS) if "all" in given.names else given.names
    if problem := _problem(given.names, names, given.out):
        parser.error(problem)
    if not names:
        _list_them()
    for name in names:
        show = DEMONSTRATIONS[name][1]
        print()
        if name == "attention":
            show(given.out or PICTURE)
        else:
            show()
    return DONE


class _Parser(argparse.ArgumentParser):
    """argparse that answers a bad line with one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_USAGE, f"{PROGRAM}: {' '.join(message.split())}; see python -m {PROGRAM} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"python -m {PROGRAM}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"all, or some of: {', '.join(DEMONSTRATIONS)}")
    parser.add_argument(
        "--out", metavar="PATH", type=Path, help=f"the picture that attention draws, a .png (default: {PICTURE})"
    )
    return parser


def _problem(given: Sequence[str], names: Sequence[str], out: Path | None) -> str:
    """What is wrong with the command line, in words, or nothing."""
    known = ["all", *DEMONSTRATIONS]
    for name in given:
        if name not in known:
            near = get_close_matches(name.lower(), known, 1, 0.5)
            return f"there is no {name!r}" + (
                f" (did you mean {near[0]}?)" if near else f"; there are {', '.join(known)}"
            )
    if out is not None and "attention" not in names:
        return "--out is where attention draws its picture, and attention is not among the names"
    if out is not None and out.suffix.lower() != ".png":
        return f"--out must be a file that ends in .png, got {str(out)!r}"
    return ""


def _list_them() -> None:
    print("Demonstrations, in the order to read them:\n")
    for name, (line, _) in DEMONSTRATIONS.items():
        print(f"  {name:<17}{line}")
    print(f"\nRun one:  python -m {PROGRAM} byte-pairs\nRun all:  python -m {PROGRAM} all")


def _run() -> NoReturn:
    """Run `main` and leave with its exit code; what a person can cause becomes one line on stderr."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a text that someone tries out may not fit the encoding
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough; closing at exit would complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except (OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = FAILED
    sys.exit(code)


if __name__ == "__main__":
    _run()
