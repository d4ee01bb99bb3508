"""The assistant's commands and their replies."""

import textwrap
import time
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any, get_args

from src.chat.command_table import Command, LabelledAnswers, Question, Reply
from src.chat.commands import (
    LAST_TURNS,
    Chat,
    common_commands,
    context_lines,
    forget_typed,
    shown_turns,
    typed_lines_left,
)
from src.chat.commands import forget as forget_common
from src.chat.commands import settings as common_settings
from src.common.messages import count
from src.memory.keeping import RememberMode
from src.memory.open_session import OpenSession, summarise
from src.memory.private_files import damaged_files
from src.memory.words import contains_any
from src.sk_integration.memory_manager import Conversation, LongTermMemory
from src.sk_integration.orchestrator import REFINE_INSTRUCTION, Assistant

MULTI_USAGE = (
    "/multi needs at least two steps with a semicolon between them: /multi name a fruit; write a line about it"
)
INTERRUPTED = "The last answer was interrupted; /retry answers again"
_MAX_LISTED_FACTS = 50
_MAX_SHOWN = 1000  # characters of a message when a session is opened
_MIN_PREVIEW = 12  # columns for the start of a message


def assistant_commands(chat: Chat, assistant: Assistant) -> list[Command]:
    """The commands of every chat, and those of the assistant, which is the chat's backend."""

    def command(name: str, argument: str, help: str, run: Callable[..., Reply], **options: Any) -> Command:
        return Command(name, help, partial(run, assistant), argument, **options)

    own = [
        command("/refine", "[HOW]", "improve the last answer: /refine make it shorter", refine),
        command("/multi", "STEPS", "answer step by step: /multi name a fruit; write a line about it", multi),
        command("/remember", "[TEXT]", "keep a fact in long-term memory: /remember My cat is called Miso.", remember),
        command("/memory", "", "show the summary, the context and the saved facts", partial(memory, chat=chat)),
        command(
            "/forget",
            "N|all|typed",
            "delete a fact, all facts, or all typed lines",
            partial(forget, chat=chat),
            deletes=True,
        ),
        command("/new", "[NAME]", "start another conversation", start_new, aliases=("/clear",)),
        command("/sessions", "[TEXT]", "list the sessions, or those that contain a text", partial(sessions, chat=chat)),
        command("/save", "NAME", "copy this conversation to a new session", save),
        command("/load", "NAME", "open another session", load),
        command("/rename", "NAME", "rename this session", rename),
        command("/delete", "NAME", "delete another session", delete, deletes=True),
        command(
            "/settings",
            "[NAME VALUE]",
            "show the settings, or change one; remember is ask, auto or off: whether facts that you state are kept",
            partial(settings, chat=chat),
        ),
    ]
    names = {command.name for command in own}
    common = [command for command in common_commands(chat) if command.name not in names]
    return [*common[:2], *own, *common[2:]]


def refine(assistant: Assistant, instruction: str) -> LabelledAnswers:
    return [("Refined: ", assistant.refine(instruction or REFINE_INSTRUCTION))]


def multi(assistant: Assistant, task: str) -> LabelledAnswers:
    steps = [step.strip() for step in task.split(";") if step.strip()]
    if len(steps) < 2:
        raise ValueError(MULTI_USAGE)
    return assistant.multi(task, steps)


def remember(assistant: Assistant, text: str) -> str:
    """Keep a text as a fact. "ask", "auto" and "off" are refused: the user means the setting."""
    if text.lower() in get_args(RememberMode):
        raise ValueError(f"/settings remember {text.lower()} changes the setting; /remember TEXT keeps a text")
    return assistant.facts.keep_text(text, assistant.conversation.name)


def save(assistant: Assistant, name: str) -> str:
    current = assistant.conversation.name
    if not name:
        if not assistant.session.is_saved:
            return "This conversation is not saved."
        return f"Session {current} is saved after every answer. /save NAME makes a copy."
    assistant.session.save_copy(name)
    return f"A copy is saved as session {name}. You are still in session {current}."


def start_new(assistant: Assistant, name: str) -> str:
    return assistant.session.start_new(name)


def load(assistant: Assistant, name: str) -> str:
    """Open a saved session. Raises ValueError with the nearest name if there is none of that name."""
    if name in ("", assistant.conversation.name):
        return f"This is session {assistant.conversation.name}. /load NAME opens another, /sessions lists them."
    if not assistant.store.exists(name):
        near = get_close_matches(name, assistant.store.names(), 1)
        hint = f"did you mean {near[0]}?" if near else "/sessions lists them;"
        raise ValueError(f"there is no session {name}; {hint} /new {name} starts a session")
    assistant.session.switch_to(name)
    return "\n\n".join([session_line(assistant.conversation), *filter(None, [last_turns(assistant)])])


def rename(assistant: Assistant, name: str) -> str:
    """Rename the open session, also where long-term memory says which session a fact comes from."""
    before = assistant.conversation.name
    if not name:
        return f"This is session {before}. /rename NAME gives it another name."
    assistant.session.rename(name)
    renamed = f"Session {before} is now called {name}."
    try:
        assistant.memory.rename_session(before, name)
    except OSError as error:
        return f"{renamed} Its facts in long-term memory keep the old name: {error}"
    return renamed


def delete(assistant: Assistant, argument: str) -> str:
    """Delete another session, if "yes" follows its name."""
    match argument.split():
        case []:
            return "/delete NAME deletes a session. /sessions lists them."
        case [name]:
            assistant.session.check_can_delete(name)
            return Question(f"This deletes session {name} permanently.", f"/delete {name} yes")
        case [name, yes] if yes.lower() == "yes":
            assistant.session.delete(name)
            return f"Session {name} is deleted."
        case _:
            raise ValueError(f"/delete takes the name of one session, got {argument[:40]!r}")


def session_line(conversation: Conversation) -> str:
    """The session's name, its number of turns, and whether its last answer is complete."""
    turns = conversation.turn_count
    if not turns:
        return f"Session {conversation.name}: empty."
    line = f"Session {conversation.name}: {count(turns, 'turn')}."
    return f"{line} {INTERRUPTED}." if _is_interrupted(conversation) else line


def _is_interrupted(conversation: Conversation) -> bool:
    return conversation.messages[-1].finish_reason == "interrupted"


def first_lines(session: OpenSession) -> list[str]:
    """What the first screen says about the session."""
    conversation = session.conversation
    if not conversation.messages:
        return [f"New session {conversation.name}" + ("; it is saved after every answer" if session.is_saved else "")]
    turns = count(conversation.turn_count, "turn")
    lines = [f"Resuming session {conversation.name} ({turns}); /new starts another one"]
    return [*lines, INTERRUPTED] if _is_interrupted(conversation) else lines


def last_turns(assistant: Assistant) -> str:
    """The last turns, for a user who opens the session. /history shows long messages in full."""
    return shown_turns([(_start(question), _start(answer)) for question, answer in assistant.turns[-LAST_TURNS:]])


def _start(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN].rstrip()} ... ({len(text):,} characters)"


def sessions(assistant: Assistant, text: str, *, chat: Chat) -> str:
    """The saved sessions, newest first: name, number of turns, date, and the start of the first message."""
    conversation, columns = assistant.conversation, chat.screen.columns
    rows = [
        (info.name, f"{count(info.turn_count, 'turn'):>9}  {_date(info.saved)}", info.first)
        for info in assistant.store.list_sessions([text])
    ]
    if not text and conversation.name not in [name for name, *_ in rows]:
        rows.insert(0, (conversation.name, f"{count(conversation.turn_count, 'turn'):>9}  not saved yet", ""))
    if not rows:
        return f"No session contains {text[:40]!r}. /sessions lists all."
    width = max(len(name) for name, *_ in rows) + 2
    is_narrow = any(first and width + len(f"  {details}  ") + _MIN_PREVIEW > columns for _, details, first in rows)
    lines = []
    for name, details, first in rows:
        marked = f"{'*' if name == conversation.name else ' '} {name}"
        line = f"    {details.lstrip()}" if is_narrow else f"{marked:<{width}}  {details}"
        lines += [marked] * is_narrow + [line + _preview(first, columns - len(line) - 2)]
    return "\n".join(lines)


def _preview(text: str, columns: int) -> str:
    """The start of a text, after two spaces; "" if there is too little room for it."""
    line = " ".join(text.split())
    if columns < _MIN_PREVIEW or not line:
        return ""
    return f"  {line if len(line) <= columns else line[: columns - 3].rstrip() + '...'}"


def memory(assistant: Assistant, _: str, *, chat: Chat) -> str:
    """The conversation's summary, its token budget, and the facts in long-term memory."""
    conversation = assistant.conversation
    lines = [session_line(conversation)]
    if conversation.messages:
        lines.append(f"Summary, the start of each message: {summarise(conversation.messages)}")
    lines += context_lines(chat)
    if assistant.facts_in_prompt:
        use = "Facts that match a question are added to its prompt."
    else:
        use = "Facts that match a question are only shown to you: this model was not trained with facts."
    listed = _list_facts(assistant.memory, chat.screen.columns)
    return "\n".join([*lines, "", *listed, *([use] if len(listed) > 1 else [])])


def settings(assistant: Assistant, argument: str, *, chat: Chat) -> Reply:
    """Show the settings, or change one, also what is remembered."""
    match argument.lower().split():
        case ["remember", "ask" | "auto" | "off" as mode]:
            assistant.facts.mode = mode
            return f"remember is {mode}."
        case ["remember"]:
            return f"remember is {assistant.facts.mode}."
        case []:
            own = {"remember": assistant.facts.mode, "memory-dir": assistant.store.folder.absolute()}
            return "\n".join([str(common_settings(chat, "")), *(f"{name:<20}{value}" for name, value in own.items())])
        case ["remember", *_]:
            raise ValueError(f"remember must be ask, auto or off, got {argument[len('remember') :].strip()[:40]!r}")
        case _:
            return common_settings(chat, argument)


def forget(assistant: Assistant, argument: str, *, chat: Chat) -> str:
    """Delete one fact, or, with "all yes", every fact, also from the typed lines. Names what stays elsewhere.

    "typed" deletes all typed lines.
    """
    facts = assistant.memory.all()
    match argument.lower().split():
        case ["typed"]:
            return forget_common(chat, argument)
        case [which, *_] if not facts and (which == "all" or which.isdecimal()):
            return "There are no saved facts."
        case ["all", "yes"]:
            for fact in facts:
                assistant.memory.forget(fact.id)
            done = f"Deleted {count(len(facts), 'fact')}. Long-term memory is empty."
        case ["all"]:
            return Question(f"This deletes {count(len(facts), 'fact')} permanently.", "/forget all yes")
        case [number] if number.isdecimal():
            facts = [assistant.memory.forget(int(number))]
            done = f"Forgot: {facts[0].text}"
        case _:
            raise ValueError(
                "/forget N deletes fact N of /memory, /forget all every fact, /forget typed the typed lines"
            )
    return "\n".join([done, *_traces(chat, assistant, [fact.text for fact in facts])])


def _traces(chat: Chat, assistant: Assistant, texts: list[str]) -> Iterator[str]:
    """Delete the typed lines with deleted facts; yields what was deleted, and what stays and how to delete it."""
    if deleted := forget_typed(chat, lambda line: contains_any(line, texts)):
        yield deleted
    yield from typed_lines_left(chat, "Other lines that you typed are")
    if names := [info.name for info in assistant.store.list_sessions(texts)]:
        yield (
            f"These saved conversations still contain the words: {', '.join(names)}. Delete one with /delete NAME "
            "(run /new first if it is the open one)."
        )
    if damaged := damaged_files(assistant.store.folder):
        yield f"Damaged files may still contain them: delete {', '.join(damaged)} in {assistant.store.folder} yourself."


def _list_facts(memory: LongTermMemory, columns: int) -> list[str]:
    facts = memory.all()
    if not facts:
        return ["Long-term memory is empty. /remember My cat is called Miso. saves a fact."]
    shown = facts[-_MAX_LISTED_FACTS:]
    width = len(str(shown[-1].id))
    title = f"Long-term memory: {count(len(facts), 'fact')}"
    if len(shown) < len(facts):
        title += f", the last {len(shown)} of them"
    lines = [f"  {fact.id:>{width}}  {fact.text}  ({fact.session}, {_date(fact.created)})" for fact in shown]
    hanging = " " * (width + 4)
    return [title, *(textwrap.fill(line, columns, subsequent_indent=hanging, break_on_hyphens=False) for line in lines)]


def _date(seconds: float | None) -> str:
    if seconds is None:
        return "unknown date"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
