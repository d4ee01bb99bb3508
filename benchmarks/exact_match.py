"""python -m benchmarks.exact_match: how many training instructions a model answers with exactly the trained response.

Every instruction is asked at temperature 0: each in a new chat; all of them in one chat with its history; and each in a
new chat that begins with a fact or a system message that training does not contain (openings.json).
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.chat.session import ChatSession, ChatSettings
from src.checkpoint import MODEL_HELP, LoadedModel, load_base
from src.cli import flag, parse
from src.data.instructions import load_conversations
from src.data.prompts import opening_text
from src.model.generate import TextGenerator
from src.program import run_script
from src.tokenizer import Encoding

OPENINGS = "openings.json"


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("auto", MODEL_HELP)
    data: Path = flag(Path("Data/instruction_data.json"), "instructions and their responses, as trained")
    show: bool = flag(False, "print the answers that differ")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    logging.disable(logging.WARNING)
    base = load_base(flags.model)
    chats = [conversation.messages for conversation in load_conversations(flags.data)]
    pairs = [(question.text, round_trip(answer.text, base.encoding)) for question, answer in chats]
    print(f"{base.path}: trained with facts: {base.trained_with('facts')}, system: {base.trained_with('system')}")
    for name, ask in ways_to_ask(base, len(pairs)).items():
        answers = [ask(number, question) for number, (question, _) in enumerate(pairs)]
        matches = sum(answer == trained for answer, (_, trained) in zip(answers, pairs, strict=True))
        print(f"{matches:>4} of {len(pairs)} exact matches, {name}")
        for answer, (question, trained) in zip(answers, pairs, strict=True):
            if flags.show and answer != trained:
                print(f"  {question}\n    trained {trained!r}\n    answer  {answer!r}")
    return 0


def ways_to_ask(base: LoadedModel, n_questions: int) -> dict[str, Callable[[int, str], str]]:
    """By name, a function that asks a question, given its number, and returns the answer."""
    generator = TextGenerator(base.model, base.encoding)
    settings = ChatSettings(temperature=0, top_k=None, top_p=None, max_tokens=100)

    def new_chat(system: str = "") -> ChatSession:
        template = base.metadata["template"]
        return ChatSession(generator, template=template, settings=settings, notify=lambda _: None, system=system)

    def after(texts: Sequence[str]) -> Callable[[int, str], str]:
        return lambda number, question: "".join(new_chat(texts[number % len(texts)]).reply(question))

    openings = json.loads(Path(__file__).with_name(OPENINGS).read_text(encoding="utf-8"))
    unrelated, related = ([opening_text("", [fact]) for fact in openings[kind]] for kind in ("unrelated", "related"))
    chat = new_chat()
    ways = {
        "each in a new chat": after([""]),
        "all in one chat": lambda _, question: "".join(chat.reply(question)),
        "after one unrelated fact": after(unrelated),
        "after one system message": after(openings["system"]),
    }
    if n_questions == len(related):  # other data have other questions
        ways["after one related fact"] = after(related)
    return ways


def round_trip(text: str, encoding: Encoding) -> str:
    """The text, encoded and decoded: the word tokenizer normalises its spacing."""
    return encoding.decode(encoding.encode_ordinary(text))


if __name__ == "__main__":
    run_script(main)
