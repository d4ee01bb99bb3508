"""The assistant's commands and their replies."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Protocol

from src.chat.commands import Command, LabelledAnswers
from src.memory.traces import contains_any, damaged_files, sessions_with
from src.sk_integration.memory_manager import Conversation, LongTermMemory
from src.sk_integration.orchestrator import REFINE_INSTRUCTION, Assistant

MULTI_USAGE = (
    "/multi needs at least two steps with a semicolon between them: /multi name a fruit; write a line about it"
)
_MAX_LISTED_FACTS = 50


class Typed(Protocol):
    """The lines typed in chats: a TypedHistory, whose module imports prompt_toolkit."""

    def delete(self, is_deleted: Callable[[str], bool]) -> int: ...


def assistant_commands(assistant: Assistant, model_info: str, typed: Typed | None = None) -> dict[str, Command]:
    """The commands of the assistant, beyond those of every chat. `model_info` is the reply to /info.

    typed: the lines typed in this and earlier chats, from which deleted facts are deleted too.
    """

    def command(help: str, run: Callable[..., str | LabelledAnswers], *, deletes: bool = False) -> Command:
        return Command(help, partial(run, assistant), deletes=deletes)

    return {
        "/refine": command("improve the last answer; takes an instruction: /refine make it shorter", refine),
        "/multi": command("answer step by step: /multi name a fruit; write a line about it", multi),
        "/remember": command("keep a text in memory: /remember My cat is called Miso.", remember),
        "/memory": command("show the session, its prompt tokens and the saved facts", memory),
        "/forget": command("delete a saved fact, /forget 3, or all", partial(forget, typed=typed), deletes=True),
        "/save": command("copy this conversation to a new session", save),
        "/load": command("switch to another session, new or old", load),
        "/sessions": command("list the sessions", sessions),
        "/rename": command("rename this session", rename),
        "/delete": command("delete another session", delete, deletes=True),
        "/settings": command("show the settings; /settings remember ask|auto|off changes what is remembered", settings),
        "/info": Command("show which model this is", lambda _: model_info),
    }


def refine(assistant: Assistant, instruction: str) -> LabelledAnswers:
    return [("Refined: ", assistant.refine(instruction or REFINE_INSTRUCTION))]


def multi(assistant: Assistant, task: str) -> str | LabelledAnswers:
    steps = [step.strip() for step in task.split(";") if step.strip()]
    return assistant.multi(task, steps) if len(steps) > 1 else MULTI_USAGE


def remember(assistant: Assistant, text: str) -> str:
    return assistant.facts.keep_text(text, assistant.conversation.name)


def save(assistant: Assistant, name: str) -> str:
    current = assistant.conversation.name
    if not name:
        if not assistant.session.is_saved:
            return "This conversation is not saved."
        return f"Session {current} is saved after every answer. /save NAME makes a copy."
    assistant.session.save_copy(name)
    return f"A copy is saved as session {name}. You are still in session {current}."


def load(assistant: Assistant, name: str) -> str:
    if not name:
        return f"This is session {assistant.conversation.name}. /load NAME opens another, /sessions lists them."
    assistant.session.switch_to(name)
    return session_line(assistant.conversation)


def rename(assistant: Assistant, name: str) -> str:
    before = assistant.conversation.name
    if not name:
        return f"This is session {before}. /rename NAME gives it another name."
    assistant.session.rename(name)
    return f"Session {before} is now called {name}."


def delete(assistant: Assistant, name: str) -> str:
    if not name:
        return "/delete NAME deletes a session. /sessions lists them."
    assistant.session.delete(name)
    return f"Session {name} is deleted."


def session_line(conversation: Conversation) -> str:
    """The session's name, its number of turns, and whether its last answer is complete."""
    turns = conversation.turn_count
    line = f"Session {conversation.name}: {_count(turns, 'turn') if turns else 'empty'}."
    if turns and conversation.messages[-1].finish_reason == "interrupted":
        line += " The last answer was interrupted; /retry answers again."
    return line


def sessions(assistant: Assistant, _: str) -> str:
    infos = assistant.store.list_sessions()
    if not infos:
        return f"No sessions are saved in {assistant.store.folder} yet."
    width = max(len(info.name) for info in infos)
    lines = []
    for info in infos:
        mark = "*" if info.name == assistant.conversation.name else " "
        lines.append(f"{mark} {info.name:<{width}}  {_count(info.turn_count, 'turn'):>10}  saved {_date(info.saved)}")
    return "\n".join(lines)


def memory(assistant: Assistant, _: str) -> str:
    """The session, its token budget, and the facts in long-term memory."""
    conversation, usage = assistant.conversation, assistant.usage
    used = f"Context: {usage.used} of {usage.budget} prompt tokens used"
    left = f"{usage.left} left for your next message" if usage.left else "your next message will drop the oldest turns"
    lines = [session_line(conversation), f"{used}; {left}."]
    if assistant.dropped_messages:
        lines.append(f"The oldest {_count(assistant.dropped_messages // 2, 'turn')} no longer fit the context.")
    if conversation.summary:
        lines.append(f"They were about: {conversation.summary}")
    use = "are put into the prompt, too" if assistant.facts_in_prompt else "are shown to you only: see /info"
    return "\n".join([*lines, "", _list_facts(assistant.memory), f"Facts that fit a question {use}."])


def settings(assistant: Assistant, argument: str) -> str:
    """Show the settings, or change what is remembered."""
    match argument.lower().split():
        case ["remember", "ask" | "auto" | "off" as mode]:
            assistant.facts.mode = mode
            return f"remember is {mode}"
        case []:
            pass
        case _:
            return "/settings shows the settings; /settings remember ask, auto or off changes what is remembered"
    values = {name: "off" if value is None else value for name, value in asdict(assistant.settings).items()}
    values |= {"remember": assistant.facts.mode, "session": assistant.conversation.name}
    values |= {"memory_dir": assistant.store.folder}
    return "\n".join(f"{name:<20}{value}" for name, value in values.items())


def forget(assistant: Assistant, argument: str, *, typed: Typed | None = None) -> str:
    """Delete one fact, or, with "all yes", every fact, also from the typed lines. Names what stays elsewhere."""
    facts = assistant.memory.all()
    match argument.lower().split():
        case [which, *_] if not facts and (which == "all" or which.isdecimal()):
            return "There are no saved facts."
        case ["all", "yes"]:
            for fact in facts:
                assistant.memory.forget(fact.id)
            done = f"Deleted {_count(len(facts), 'fact')}. Long-term memory is empty."
        case ["all"]:
            return f"This deletes {_count(len(facts), 'fact')} permanently. To confirm, type /forget all yes"
        case [number] if number.isdecimal():
            facts = [assistant.memory.forget(int(number))]
            done = f"Forgot: {facts[0].text}"
        case _:
            return "/forget N deletes fact N, /forget all deletes every fact. /memory lists them."
    return "\n".join([done, *_traces(assistant, [fact.text for fact in facts], typed)])


def _traces(assistant: Assistant, texts: list[str], typed: Typed | None) -> Iterator[str]:
    """Delete the typed lines with deleted facts; yields what was deleted, and what stays and how to delete it."""
    deleted = typed.delete(lambda line: contains_any(line, texts)) if typed else 0
    if deleted:
        yield f"Deleted {_count(deleted, 'typed line')} from the history of the arrow keys."
    if names := sessions_with(assistant.store, texts):
        yield (
            f"The words are still in these saved conversations: {', '.join(names)}. /delete NAME deletes one; "
            "the open one can be deleted after /new."
        )
    if damaged := damaged_files(assistant.store.folder):
        yield f"Damaged files may still contain them: delete {', '.join(damaged)} in {assistant.store.folder} yourself."


def _list_facts(memory: LongTermMemory) -> str:
    facts = memory.all()
    if not facts:
        return "Long-term memory is empty. /remember My cat is called Miso. saves a fact."
    shown = facts[-_MAX_LISTED_FACTS:]
    width = len(str(shown[-1].id))
    title = f"Long-term memory: {_count(len(facts), 'fact')}"
    if len(shown) < len(facts):
        title += f", the last {len(shown)} of them"
    lines = [f"  {fact.id:>{width}}  {fact.text}  ({fact.session}, {_date(fact.created)})" for fact in shown]
    return "\n".join([title, *lines])


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _date(seconds: float | None) -> str:
    if seconds is None:
        return "unknown date"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
