"""The assistant's commands and their replies."""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from src.chat.commands import Command, LabelledAnswers
from src.sk_integration.memory_manager import Conversation, LongTermMemory
from src.sk_integration.orchestrator import REFINE_INSTRUCTION, Assistant

MULTI_USAGE = (
    "/multi needs at least two steps with a semicolon between them: /multi name a fruit; write a line about it"
)
_MAX_LISTED_FACTS = 50


def assistant_commands(assistant: Assistant, model_info: str) -> dict[str, Command]:
    """The commands of the assistant, beyond those of every chat. `model_info` is the reply to /info."""

    def command(help: str, run: Callable[[Assistant, str], str | LabelledAnswers]) -> Command:
        return Command(help, partial(run, assistant))

    return {
        "/refine": command("improve the last answer; takes an instruction: /refine make it shorter", refine),
        "/multi": command("answer step by step: /multi name a fruit; write a line about it", multi),
        "/memory": command("show the session, its prompt tokens and the saved facts", memory),
        "/forget": command("delete a saved fact by its number, or all facts", forget),
        "/save": command("copy this conversation to a new session", save),
        "/load": command("switch to another session, new or old", load),
        "/sessions": command("list the sessions", sessions),
        "/settings": command("show the settings", settings),
        "/info": Command("show which model this is", lambda _: model_info),
    }


def refine(assistant: Assistant, instruction: str) -> LabelledAnswers:
    return [("Refined: ", assistant.refine(instruction or REFINE_INSTRUCTION))]


def multi(assistant: Assistant, task: str) -> str | LabelledAnswers:
    steps = [step.strip() for step in task.split(";") if step.strip()]
    return assistant.multi(task, steps) if len(steps) > 1 else MULTI_USAGE


def save(assistant: Assistant, name: str) -> str:
    current = assistant.conversation.name
    if not name:
        return f"session {current} is saved after every answer; /save NAME makes a copy"
    assistant.save_copy(name)
    return f"saved a copy as session {name}; you are still in session {current}"


def load(assistant: Assistant, name: str) -> str:
    if not name:
        return f"this is session {assistant.conversation.name}; /load NAME opens another, /sessions lists them"
    assistant.switch_to(name)
    return session_line(assistant.conversation)


def session_line(conversation: Conversation) -> str:
    """The session's name and its number of turns."""
    turns = conversation.turn_count
    return f"session {conversation.name}: " + (f"{_count(turns, 'turn')}; /reset starts over" if turns else "empty")


def sessions(assistant: Assistant, _: str) -> str:
    infos = assistant.store.list_sessions()
    if not infos:
        return f"no sessions are saved in {assistant.store.folder} yet"
    width = max(len(info.name) for info in infos)
    lines = []
    for info in infos:
        mark = "*" if info.name == assistant.conversation.name else " "
        lines.append(f"{mark} {info.name:<{width}}  {_count(info.turn_count, 'turn'):>10}  saved {_date(info.saved)}")
    return "\n".join(lines)


def memory(assistant: Assistant, _: str) -> str:
    """The session, its token budget, and the facts in long-term memory."""
    conversation, usage = assistant.conversation, assistant.usage
    lines = [session_line(conversation)]
    if usage.left:
        lines.append(f"prompt tokens: {usage.used} of {usage.budget} used; {usage.left} left for your next message")
    else:
        lines.append(f"prompt tokens: {usage.used} of {usage.budget} used; your next message drops the oldest turns")
    if assistant.dropped_messages:
        lines.append(f"dropped: the oldest {_count(assistant.dropped_messages // 2, 'turn')} (out of context)")
    if conversation.summary:
        lines.append(f"dropped turns were about: {conversation.summary}")
    return "\n".join([*lines, "", _list_facts(assistant.memory)])


def settings(assistant: Assistant, _: str) -> str:
    values = {name: "off" if value is None else value for name, value in asdict(assistant.settings).items()}
    values |= {"session": assistant.conversation.name, "memory_dir": assistant.store.folder}
    return "\n".join(f"{name:<20}{value}" for name, value in values.items())


def forget(assistant: Assistant, argument: str) -> str:
    """Delete one fact, or, with "all yes", every fact."""
    facts = assistant.memory.all()
    match argument.lower().split():
        case [which, *_] if not facts and (which == "all" or which.isdecimal()):
            return "there are no saved facts to forget; /reset clears this conversation"
        case ["all", "yes"]:
            for fact in facts:
                assistant.memory.forget(fact.id)
            return f"deleted {_count(len(facts), 'fact')}; long-term memory is empty"
        case ["all"]:
            return f"this permanently deletes {_count(len(facts), 'fact')}; to confirm, type /forget all yes"
        case [number] if number.isdecimal():
            return f"forgot: {assistant.memory.forget(int(number)).text}"
        case _:
            return "/forget N deletes fact N, /forget all deletes every fact; /memory lists them"


def _list_facts(memory: LongTermMemory) -> str:
    facts = memory.all()
    if not facts:
        return "long-term memory: empty; it saves what you say about yourself, such as: My cat is called Miso."
    shown = facts[-_MAX_LISTED_FACTS:]
    width = len(str(shown[-1].id))
    title = f"long-term memory: {_count(len(facts), 'fact')}; /forget N deletes one"
    if len(shown) < len(facts):
        title += f" (the last {len(shown)} are shown)"
    lines = [f"  {fact.id:>{width}}  {fact.text}  ({fact.session}, {_date(fact.created)})" for fact in shown]
    return "\n".join([title, *lines])


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _date(seconds: float | None) -> str:
    if seconds is None:
        return "unknown date"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
