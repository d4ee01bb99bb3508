"""Made-up openings: system messages and facts that training puts before some chats.

A small model that was tuned on bare questions answers nonsense after any other beginning, such as "Answer briefly." or
a fact that the chat's memory recalled. Here it sees its examples after many of them, and learns to answer as before.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from src.data.instructions import Conversation
from src.data.prompts import FACTS_HEADING, Message, opening_text, prompt_ids
from src.tokenizer.protocols.interfaces import Encoding

SHARE = 0.5  # of the chats, unless --system-share is given
FEW_CONVERSATIONS = 200  # with more of them, the default share is 0: so much data teaches what a chat needs
N_OPENINGS = 600
# Training draws from these lists. benchmarks/exact_match.py asks with other names, places, verbs and instructions.
_RELATIVES = (
    "cat", "dog", "brother", "sister", "mother", "father", "daughter", "son", "neighbour", "boss", "teacher", "aunt",
    "cousin", "friend",
)  # fmt: skip
_NAMES = (
    "Miso", "Biscuit", "Lena", "Anton", "Paula", "Jonas", "Ingrid", "Clara", "Tomasz", "Sofia", "Emil", "Juno",
    "Pepper", "Marta", "Rafael", "Nora",
)  # fmt: skip
_PLACES = (
    "Lisbon", "Ghent", "Warsaw", "Turin", "Oslo", "Graz", "Brittany", "Uppsala", "Dublin", "Kyoto", "Boston", "Leeds",
)  # fmt: skip
_JOBS = (
    "nurse", "pilot", "baker", "clockmaker", "gardener", "lawyer", "painter", "cook", "driver", "farmer",
)  # fmt: skip
_THINGS = (
    "coffee", "chess", "the cello", "long walks", "old films", "bread", "gardening", "peanuts", "trains", "the sea",
)  # fmt: skip
_FACTS = (
    "My {relative} is called {name}.",
    "My {relative} is a {job}.",
    "My {relative} {name} lives in {place}.",
    "My {relative} likes {thing}.",
    "I live in {place}.",
    "I was born in {place} in {year}.",
    "I work as a {job} in {place}.",
    "I like {thing}, and {thing} too.",
    "I have {number} {relative}s.",
    "The rent is {year} euros.",
    "We saw {topic}.",
    "I have read about {topic}.",
    "My {relative} told me about {topic}.",
    "{name} and I talked about {topic} in {place}.",
    "My favourite subject is {topic}.",
    "I want to learn {topic}.",
)
_MANNERS = (
    "briefly", "politely", "in one sentence", "in plain words", "in detail", "in English", "honestly", "like a pirate",
    "as if to a child", "step by step", "with an example", "in a friendly tone", "formally", "slowly", "in verse",
)  # fmt: skip
_ROLES = (
    "a helpful assistant", "a friendly chatbot", "a teacher", "an expert in science", "a small language model",
    "a poet of the court", "a patient tutor", "an honest librarian", "a cheerful guide", "a strict editor",
)  # fmt: skip
_SYSTEMS = (
    "Answer {manner}.",
    "Reply {manner}.",
    "Always speak {manner}.",
    "Be {quality}.",
    "Be {quality} and {quality}.",
    "You are {role}.",
    "You are {role}. Answer {manner}.",
    "You are {role} called {name}.",
    "You talk to {role}. Use simple words.",
    "Never say that you are {role}.",
    "Today is {number} May {year}.",
)
_QUALITIES = (
    "polite", "short", "clear", "helpful", "kind", "precise", "funny", "serious", "careful", "quick",
)  # fmt: skip
_TOPIC_WORDS = 4  # a topic is up to this many words in a row of one of the questions


@dataclass(frozen=True)
class Openings:
    """The texts of the openings, and the share of the chats that begin with one of them."""

    texts: tuple[str, ...] = ()
    share: float = 0.0

    def ids(self, encoding: Encoding) -> list[list[int]]:
        """The token ids of each opening, as at the start of a prompt."""
        return [prompt_ids(Message("system", text), encoding) for text in self.texts]

    def describe(self) -> str:
        """One line for the summary of a run."""
        if not self.texts:
            return "none: every chat begins as in the data"
        return f"{self.share:.0%} of the chats begin with one of {len(self.texts)} made-up ones: {self.texts[0]!r}, ..."


def choose_openings(conversations: Sequence[Conversation], seed: int, share: float | None) -> Openings:
    """The openings of a training run. share: --system-share; None for the default.

    By default, data with its own system messages, or with many conversations, gets none.
    """
    chats = [conversation.messages for conversation in conversations]
    if share is None:
        has_own = any(message.role == "system" for messages in chats for message in messages)
        share = 0.0 if has_own or len(chats) > FEW_CONVERSATIONS else SHARE
    questions = [message.text for messages in chats for message in messages if message.role == "user"]
    return Openings(tuple(make_openings(questions, seed)), share) if share else Openings()


def make_openings(questions: Sequence[str], seed: int) -> list[str]:
    """N_OPENINGS texts, the same for the same questions and seed. Topics of facts are taken from the questions.

    Half of them are one to three facts. The others are a system message, and a fifth of these also has a fact.
    """
    rng = random.Random(seed)
    openings = []
    for number in range(N_OPENINGS):
        if number % 2:
            facts = [_fill(rng, rng.choice(_FACTS), questions) for _ in range(rng.choice((1, 1, 2, 3)))]
            openings.append(opening_text("", facts))
        else:
            facts = [_fill(rng, rng.choice(_FACTS), questions)] if rng.random() < 0.2 else []
            openings.append(opening_text(_fill(rng, rng.choice(_SYSTEMS), questions), facts))
    return openings


def kinds_of_system_message(conversations: Iterable[Conversation], openings: Openings) -> dict[str, bool]:
    """The kinds of system message in the training data, for the checkpoint: with facts ("facts"), others ("system")."""
    systems = [message.text for one in conversations for message in one.messages if message.role == "system"]
    systems += openings.texts
    return {
        "facts": any(FACTS_HEADING in text for text in systems),
        "system": any(not text.startswith(FACTS_HEADING) for text in systems),
    }


def opening_words() -> Iterator[str]:
    """All words that an opening can contain, besides those of the questions."""
    yield from (*_FACTS, *_SYSTEMS, *_MANNERS, *_ROLES)
    yield from (*_RELATIVES, *_NAMES, *_PLACES, *_JOBS, *_THINGS, *_QUALITIES)


def _fill(rng: random.Random, template: str, questions: Sequence[str]) -> str:
    words = rng.choice(questions).rstrip(".?!").split()
    start = rng.randrange(len(words))
    fillers = {
        "relative": _RELATIVES, "name": _NAMES, "place": _PLACES, "job": _JOBS, "thing": _THINGS,
        "manner": _MANNERS, "role": _ROLES, "quality": _QUALITIES,
        "number": [str(rng.randint(2, 30))], "year": [str(rng.randint(1900, 2030))],
        "topic": [" ".join(words[start : start + rng.randint(1, _TOPIC_WORDS)])],
    }  # fmt: skip
    while "{" in template:
        before, _, rest = template.partition("{")
        slot, _, after = rest.partition("}")
        template = before + rng.choice(fillers[slot]) + after
    return template
