"""A command for each setting of a chat, such as /temperature: it shows the setting or changes it."""

from dataclasses import Field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from src.chat.command_table import Command
from src.chat.flags import ChatSettings

if TYPE_CHECKING:
    from src.chat.commands import Chat, ChatBackend

OFF = ("off", "none")
_HOT = 2  # temperature


def setting_commands(chat: "Chat") -> list[Command]:
    """A command for each setting, which shows or changes it."""
    hints = get_type_hints(ChatSettings)
    commands = []
    for setting in fields(ChatSettings):
        number_type = int if hints[setting.name] in (int, int | None) else float
        commands.append(
            Command(
                f"/{shown_name(setting.name)}",
                setting.metadata["help"].replace("none ", "off "),
                partial(_show_or_change, chat, setting, number_type),
                "[N]" if number_type is int else "[X]",
                aliases=tuple(f"/{alias}" for alias in setting.metadata["aliases"]),
                current=partial(current_value, chat.backend, setting.name),
            )
        )
    return commands


def shown_name(setting: str) -> str:
    """The name of a setting in flags, commands and replies."""
    return setting.replace("_", "-")


def current_value(backend: "ChatBackend", name: str) -> str:
    value = getattr(backend.settings, name)
    return "off" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _show_or_change(chat: "Chat", setting: Field, number_type: type[int | float], argument: str) -> str:
    name, backend = shown_name(setting.name), chat.backend
    if argument:
        try:
            value = None if argument.lower() in OFF else number_type(argument)
            changed: dict[str, Any] = {setting.name: value}
            backend.settings = replace(backend.settings, **changed)
        except ValueError:
            expected = setting.metadata["expected"].replace(" None", " off")
            raise ValueError(f"/{name} must be {expected}, got {argument[:40]!r}") from None
    return f"{name} is {current_value(backend, setting.name)}.{_warning(chat, setting.name)}"


def _warning(chat: "Chat", name: str) -> str:
    """A sentence about a value that is allowed and seldom useful; "" for any other value."""
    settings, context = chat.backend.settings, chat.model.checkpoint.model.config.context_length
    if name == "temperature" and settings.temperature > _HOT:
        return f" Above {_HOT}, the choice of tokens is close to random."
    if name == "max_tokens" and settings.max_tokens > context:
        return f" An answer that is longer than the context, {context} tokens, loses sight of your message."
    return ""
