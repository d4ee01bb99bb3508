"""python sk_chat.py: talk to a model that remembers, through Semantic Kernel; /help lists the commands.

The conversation is saved after every answer and goes on at the next start. What you tell about yourself is kept for
all conversations. With --prompt it answers once, and only the answer goes to stdout; lines piped in are answered one
after the other.
"""

import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.chat.start import ChatFlags, LoadedChat, is_interactive, load_chat_model
from src.chat.terminal import Command, Screen, piped_lines, session_commands, talk, typed_lines
from src.cli import flag, parse
from src.common.messages import naming_file
from src.program import BAD_USAGE, DONE, INTERRUPTED, run_script
from src.sk_integration.sk_import import import_semantic_kernel

if TYPE_CHECKING:
    from src.sk_integration.orchestrator import Assistant

# The defaults of the flags; chat.py's flags have theirs in src/chat/session.py and start.py.
SESSION = "default"
MEMORY_DIR = Path("logs/sessions")


@dataclass(frozen=True, kw_only=True)
class Config(ChatFlags):
    prompt: str = flag("", "answer this once, on stdout, and leave; in a session only with --session (default: a chat)")
    session: str = flag(SESSION, "the conversation to go on with, or to begin")
    memory_dir: Path = flag(MEMORY_DIR, "folder of the sessions and of the long-term memory")


def main(argv: Sequence[str] | None = None) -> int:
    config, given = parse(Config, argv, __doc__)
    once = "prompt" in given
    if once and not config.prompt.strip():
        print("sk_chat.py: --prompt is empty; see python sk_chat.py --help", file=sys.stderr)
        return BAD_USAGE
    screen = Screen(interactive=not once and is_interactive())
    try:
        with screen.warnings_as_notes():
            import_semantic_kernel()
            assistant, info = open_assistant(config, screen, keep=not once or "session" in given)
            with closing(assistant):
                if once:
                    screen.answer(assistant.reply(config.prompt), label="")
                else:
                    chat(assistant, info, screen)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def open_assistant(config: Config, screen: Screen, keep: bool) -> tuple["Assistant", str]:
    """The assistant with the model that the config names, and what there is to say of that model."""
    from src.sk_integration.memory_manager import LongTermMemory, SessionStore
    from src.sk_integration.orchestrator import Assistant
    from src.sk_integration.service import GPT2ChatCompletion

    model = load_chat_model(config, screen.note, interactive=screen.interactive)
    with naming_file(model.base.path):
        service = GPT2ChatCompletion(model.generator, template=model.template, notify=screen.note)
    assistant = Assistant(
        service,
        store=SessionStore(config.memory_dir, screen.note),
        memory=LongTermMemory(config.memory_dir / "memory.sqlite3", screen.note),
        session=config.session,
        settings=config.settings(),
        notify=screen.note,
        keep=keep,
    )
    return assistant, about_model(model)


def about_model(model: LoadedChat) -> str:
    base = model.base
    total, without_embeddings = base.model.config.parameter_count()
    facts = {
        "model": f"{base.path}, {base.reason}",
        "stage": base.metadata.get("stage", "unknown"),
        "parameters": f"{total:,}, {without_embeddings:,} without the embeddings",
        "context": f"{base.model.config.context_length} tokens",
        "tokenizer": f"{base.encoding.name}, {base.encoding.n_vocab:,} tokens",
        "template": model.template or "none: it continues text",
        "device": model.device,
    }
    return "\n".join(f"{name:<12}{fact}" for name, fact in facts.items())


def chat(assistant: "Assistant", info: str, screen: Screen) -> None:
    from src.sk_integration.commands import assistant_commands, session_line

    commands = session_commands(assistant)
    commands |= {name: Command(what, run) for name, (what, run) in assistant_commands(assistant, info).items()}
    screen.note(session_line(assistant))
    if not screen.interactive:
        talk(assistant.reply, screen, commands, piped_lines())
        return
    from src.memory.typed_history import TypedHistory

    signal.signal(signal.SIGTERM, _leave)  # as Ctrl-C it would stop an answer and not the chat
    screen.note("/help lists the commands, Ctrl-D leaves")
    typed = TypedHistory(assistant.store.folder / "typed_lines", screen.note)
    talk(assistant.reply, screen, commands, typed_lines(screen, commands, typed))


def _leave(*_: object) -> None:
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    run_script(main, out_of_memory="use a smaller model, or --quantize int8")
