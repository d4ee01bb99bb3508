"""python -m benchmarks.exact_match: how many training instructions a model answers with exactly the trained response.

Every instruction is asked at temperature 0: first each in a new chat, then all of them in one chat with its history.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.chat.session import ChatSession, ChatSettings
from src.checkpoint import MODEL_HELP, load_base
from src.cli import flag, parse
from src.data.instructions import load_conversations
from src.model.generate import TextGenerator
from src.program import run_script
from src.tokenizer import Encoding


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("auto", MODEL_HELP)
    data: Path = flag(Path("Data/instruction_data.json"), "instructions and their responses, as trained")
    show: bool = flag(False, "print the answers that differ")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    logging.disable(logging.WARNING)
    base = load_base(flags.model)
    generator = TextGenerator(base.model, base.encoding)
    chats = [conversation.messages for conversation in load_conversations(flags.data)]
    pairs = [(question.text, round_trip(answer.text, base.encoding)) for question, answer in chats]

    def new_chat() -> ChatSession:
        settings = ChatSettings(temperature=0, top_k=None, top_p=None, max_tokens=100)
        return ChatSession(generator, template=base.metadata["template"], settings=settings, notify=lambda _: None)

    chat = new_chat()
    separate = [("".join(new_chat().reply(question)), answer, question) for question, answer in pairs]
    one_chat = [("".join(chat.reply(question)), answer, question) for question, answer in pairs]
    for name, answers in (("each in a new chat", separate), ("all in one chat", one_chat)):
        matches = sum(answer == trained for answer, trained, _ in answers)
        print(f"{base.path}: {matches} of {len(pairs)} exact matches, {name}")
        if flags.show:
            for answer, trained, question in answers:
                if answer != trained:
                    print(f"  {question}\n    trained {trained!r}\n    answer  {answer!r}")
    return 0


def round_trip(text: str, encoding: Encoding) -> str:
    """The text, encoded and decoded: the word tokenizer normalises its spacing."""
    return encoding.decode(encoding.encode_ordinary(text))


if __name__ == "__main__":
    run_script(main)
