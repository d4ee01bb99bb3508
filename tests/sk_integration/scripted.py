"""A model that gives prepared answers behind the real service, and what an assistant needs around it."""

import torch

from src.chat.session import ChatSettings
from src.data.prompts import TEMPLATE, render_conversation
from src.model.decoding.text_stream import TextStream, stop_strings
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.sk_integration.memory_manager import LongTermMemory, SessionStore
from src.sk_integration.orchestrator import Assistant
from src.sk_integration.service import GPT2ChatCompletion
from src.tokenizer import load_gpt2_encoding

ENCODING = load_gpt2_encoding()
SETTINGS = ChatSettings(temperature=0.7, top_k=40, top_p=0.9, max_tokens=20)


class Reciter(TextGenerator):
    """Gives its answers one after another; in an answer, an exception is raised and a function is called."""

    def __init__(self, *answers, context_length: int = 128) -> None:
        torch.manual_seed(0)
        size = {"context_length": context_length, "d_model": 8, "n_heads": 1, "n_layers": 1}
        super().__init__(GPTModel({"vocab_size": 50257, **size}), ENCODING)
        self.answers, self.prompts, self.asked_with, self.kept, self.made = list(answers), [], [], [], 0

    def stream(self, prompt, max_new_tokens=100, *, stop=None, kept=None, **settings):
        self.kept.append(kept)
        self.prompts.append(ENCODING.decode(prompt))
        self.asked_with.append({"max_tokens": max_new_tokens, **settings})
        answer = self.answers.pop(0)
        tokens = self.tokens([answer] if isinstance(answer, str) else answer, max_new_tokens)
        return TextStream(tokens, ENCODING, max_new_tokens, stop_strings(stop))

    def tokens(self, parts, limit):
        for part in parts:
            if isinstance(part, BaseException):
                raise part
            if callable(part):
                part()
                continue
            for token in ENCODING.encode_ordinary(part):
                if not limit:
                    return
                limit -= 1
                self.made += 1
                yield token


def rendered(*turns: str, system: str = "") -> str:
    """The prompt of a conversation, as training renders it; an answer ends with end-of-text."""
    from src.chat.session import ChatTurn

    roles = ("user", "assistant") * len(turns)
    said = [ChatTurn("system", system)] if system else []
    said += [ChatTurn(role, text) for role, text in zip(roles, turns, strict=False)]
    return ENCODING.decode(render_conversation(said, ENCODING)[0])


def service(*answers, context_length=128, template=TEMPLATE):
    """(service, its generator, what was told)"""
    generator, notes = Reciter(*answers, context_length=context_length), []
    return GPT2ChatCompletion(generator, template=template, notify=notes.append), generator, notes


def assistant(folder, *answers, session="talk", context_length=128, template=TEMPLATE, settings=SETTINGS, keep=True):
    """(assistant, its generator, what the person was told)"""
    model, generator, notes = service(*answers, context_length=context_length, template=template)
    model._notify = notes.append
    made = Assistant(
        model,
        store=SessionStore(folder, notes.append),
        memory=LongTermMemory(folder / "memory.sqlite3", notes.append),
        session=session,
        settings=settings,
        notify=notes.append,
        keep=keep,
    )
    return made, generator, notes
