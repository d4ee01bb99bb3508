"""The Semantic Kernel service and assistant, with a scripted generator in place of a model."""

from pathlib import Path
from typing import Any

from src.chat.session import ChatSettings
from src.data.prompts import TEMPLATE
from src.memory.keeping import RememberMode
from src.sk_integration.memory_manager import FactKeeper, LongTermMemory, OpenSession, SessionStore
from src.sk_integration.orchestrator import Assistant
from src.sk_integration.service import GPT2ChatCompletion
from tests.fakes import CHAT_SETTINGS, ScriptedGenerator


def scripted_service(
    *answers: Any, context_length: int = 128, template: str | None = TEMPLATE
) -> tuple[GPT2ChatCompletion, ScriptedGenerator, list[str]]:
    """(service, its generator, the notes that it showed the user)"""
    generator, notes = ScriptedGenerator(*answers, context_length=context_length), []
    return GPT2ChatCompletion(generator, template=template, notify=notes.append), generator, notes


def scripted_assistant(
    folder: Path,
    *answers: Any,
    session: str = "talk",
    context_length: int = 128,
    template: str | None = TEMPLATE,
    settings: ChatSettings = CHAT_SETTINGS,
    save: bool = True,
    facts_in_prompt: bool = True,
    remember: RememberMode = "auto",
) -> tuple[Assistant, ScriptedGenerator, list[str]]:
    """(assistant, its generator, the notes that it showed the user)"""
    service, generator, notes = scripted_service(*answers, context_length=context_length, template=template)
    store = SessionStore(folder, notes.append)
    memory = LongTermMemory(folder / "memory.sqlite3", notes.append)
    assistant = Assistant(
        service,
        session=OpenSession(store, session, save=save, can_write=True, notify=notes.append),
        facts=FactKeeper(memory, remember, notes.append, can_keep=save),
        settings=settings,
        notify=notes.append,
        facts_in_prompt=facts_in_prompt,
    )
    return assistant, generator, notes
