"""What the assistant's commands do, and what they say about it."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from functools import partial

from src.sk_integration.memory_manager import LongTermMemory
from src.sk_integration.orchestrator import IMPROVE, Assistant

MULTI_USAGE = "/multi takes two steps or more with semicolons between them: /multi name a fruit; write a line about it"
_LISTED = 50  # memories that /memory shows, the last ones

Answers = Iterator[tuple[str, Generator[str, None, None]]]  # each with its heading


def assistant_commands(assistant: Assistant, info: str) -> dict[str, tuple[str, Callable[[str], str | Answers]]]:
    """For each command what it does and the function that does it, which takes what was typed after the name.

    info: what /info says of the model. The functions raise ValueError and OSError for what could not be done.
    """
    commands = {
        "/refine": ("improve the last answer; with words, as they say: /refine shorter", refine),
        "/multi": ("answer step by step: /multi name a fruit; write a line about it", multi),
        "/memory": ("what is remembered: this conversation, its tokens, and facts for all of them", memory),
        "/forget": ("delete the fact of a number, or all", forget),
        "/save": ("copy this conversation under another name", save),
        "/load": ("go on with another session, or begin it", load),
        "/sessions": ("list the sessions", sessions),
        "/settings": ("show the settings", settings),
    }
    bound = {name: (what, partial(run, assistant)) for name, (what, run) in commands.items()}
    return {**bound, "/info": ("which model this is", lambda _: info)}


def refine(assistant: Assistant, instruction: str) -> Answers:
    return iter([("Refined: ", assistant.refine(instruction or IMPROVE))])


def multi(assistant: Assistant, line: str) -> str | Answers:
    steps = [step.strip() for step in line.split(";") if step.strip()]
    return assistant.multi(line, steps) if len(steps) > 1 else MULTI_USAGE


def save(assistant: Assistant, name: str) -> str:
    if not name:
        return f"session {assistant.conversation.name} is saved after every answer; /save NAME copies it"
    assistant.copy_to(name)
    return f"copied to session {name}; this is still {assistant.conversation.name}"


def load(assistant: Assistant, name: str) -> str:
    if not name:
        return f"this is session {assistant.conversation.name}; /load NAME goes on with another, /sessions lists them"
    assistant.switch(name)
    return session_line(assistant)


def session_line(assistant: Assistant) -> str:
    """Which session this is, and how much was said in it."""
    turns = sum(message.role == "user" for message in assistant.conversation.messages)
    so_far = f"{_counted(turns, 'turn')} so far; /reset begins anew" if turns else "new and empty"
    return f"session {assistant.conversation.name}: {so_far}"


def sessions(assistant: Assistant, _: str) -> str:
    infos = assistant.store.list_sessions()
    if not infos:
        return f"no session is saved in {assistant.store.folder} yet"
    width = max(len(info.name) for info in infos)
    lines = []
    for info in infos:
        mark = "*" if info.name == assistant.conversation.name else " "
        lines.append(f"{mark} {info.name:<{width}}  {_counted(info.turns, 'turn'):>10}  saved {_date(info.saved)}")
    return "\n".join(lines)


def memory(assistant: Assistant, _: str) -> str:
    """The conversation, its token budget, and what long-term memory holds."""
    conversation, usage = assistant.conversation, assistant.usage
    if usage.left:
        tokens = f"{usage.used} of the {usage.budget} that a prompt may have; {usage.left} left for your next message"
    else:
        tokens = f"{usage.used}; a prompt may have {usage.budget}, so your next message pushes the oldest turns out"
    lines = [session_line(assistant), f"tokens: {tokens}"]
    if assistant.left_out:
        lines.append(f"left out: the oldest {_counted(assistant.left_out // 2, 'turn')} no longer fit")
    if conversation.summary:
        lines.append(f"older turns were about: {conversation.summary}")
    return "\n".join([*lines, "", _facts(assistant.memory)])


def settings(assistant: Assistant, _: str) -> str:
    values = {name: "off" if value is None else value for name, value in asdict(assistant.settings).items()}
    values |= {"session": assistant.conversation.name, "memory_dir": assistant.store.folder}
    return "\n".join(f"{name:<20}{value}" for name, value in values.items())


def forget(assistant: Assistant, argument: str) -> str:
    """Delete one memory, or all of them when asked twice."""
    there = assistant.memory.all()
    match argument.lower().split():
        case [which, *_] if not there and (which == "all" or which.isdecimal()):
            return "long-term memory is empty: there is nothing to forget; /reset forgets this conversation"
        case ["all", "yes"]:
            for each in there:
                assistant.memory.forget(each.id)
            return f"long-term memory is empty; deleted: {_counted(len(there), 'fact')}"
        case ["all"]:
            return f"this deletes {_counted(len(there), 'fact')} for good; /forget all yes does it"
        case [number] if number.isdecimal():
            return f"forgotten: {assistant.memory.forget(int(number)).text}"
        case _:
            return "/forget N deletes the fact of that number, /forget all every one; /memory lists them"


def _facts(memory: LongTermMemory) -> str:
    facts = memory.all()
    if not facts:
        return "long-term memory: empty; it keeps what you tell about yourself, such as: My cat is called Miso."
    shown = facts[-_LISTED:]
    width = len(str(shown[-1].id))
    title = f"long-term memory: {_counted(len(facts), 'fact')}; /forget N deletes one"
    more = [f"(the last {len(shown)} of them)"] if len(shown) < len(facts) else []
    lines = [f"  {each.id:>{width}}  {each.text}  ({each.session}, {_date(each.created)})" for each in shown]
    return "\n".join([title, *more, *lines])


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
