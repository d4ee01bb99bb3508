"""python -m benchmarks.word_for_word: how many trained instructions a model answers exactly as it was taught.

Asks every instruction at temperature 0, each alone and all one after another in a single chat with its history.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.chat.session import ChatSession, ChatSettings
from src.chat.start import MODELS
from src.checkpoint import load_base
from src.cli import flag, parse
from src.data.instructions import load_conversations
from src.model.generate import TextGenerator
from src.program import run_script
from src.tokenizer import Encoding, load_encoding


@dataclass(frozen=True, kw_only=True)
class Config:
    model: str = flag("auto", "dpo, sft, or a path; auto takes the first that is there")
    data: Path = flag(Path("Data/instruction_data.json"), "instructions and the responses that were taught")
    show: bool = flag(False, "print the answers that differ")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    logging.disable(logging.WARNING)
    base = load_base(flags.model, MODELS, load_encoding)
    generator = TextGenerator(base.model, base.encoding)
    pairs = [(c.turns[0].text, as_spelled(c.turns[1].text, base.encoding)) for c in load_conversations(flags.data)]

    def session() -> ChatSession:
        settings = ChatSettings(temperature=0, top_k=None, top_p=None, max_tokens=100)
        return ChatSession(generator, template=base.metadata["template"], settings=settings, notify=lambda _: None)

    chat = session()
    alone = [("".join(session().reply(question)), answer, question) for question, answer in pairs]
    together = [("".join(chat.reply(question)), answer, question) for question, answer in pairs]
    for name, answers in (("each alone", alone), ("in one chat", together)):
        right = sum(given == taught for given, taught, _ in answers)
        print(f"{base.path}: {right} of {len(pairs)} word for word, {name}")
        if flags.show:
            for given, taught, question in answers:
                if given != taught:
                    print(f"  {question}\n    taught {taught!r}\n    given  {given!r}")
    return 0


def as_spelled(text: str, encoding: Encoding) -> str:
    """The text as the tokenizer gives it back: of words, with its own spacing."""
    return encoding.decode(encoding.encode_ordinary(text))


if __name__ == "__main__":
    run_script(main)
