"""The settings of an answer, as Semantic Kernel's programs give them."""

from dataclasses import asdict, fields
from typing import Any, get_args

from pydantic import ValidationInfo, field_validator
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings

from src.chat.session import ChatSettings
from src.model.generate import stop_strings

# What other services call our settings. Our own name takes precedence.
_OTHER_NAMES = {"max_completion_tokens": "max_tokens", "max_new_tokens": "max_tokens", "stop_sequences": "stop"}
# Settings that this model does not have, with the value that asks for nothing else.
_NEUTRAL = {"n": 1, "number_of_responses": 1, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}}
_BOOKKEEPING = {"user", "store", "metadata", "stream", "stream_options", "structured_json_response"}


class GPT2ChatSettings(PromptExecutionSettings, ChatSettings):  # type: ignore[misc]  # ChatSettings is frozen
    """The fields of ChatSettings as Semantic Kernel's settings, with the same defaults and bounds, and stop strings.

    Other services' names of these settings work too: max_completion_tokens, max_new_tokens and stop_sequences.

    Raises pydantic's ValidationError, a ValueError, for a value out of bounds. None disables a filter when it is given
    here or assigned; in generic settings it leaves the default, since Semantic Kernel drops None when it converts them.
    """

    stop: list[str] | None = None

    def __init__(self, service_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(service_id, **kwargs)  # ignores settings that are None
        for name, declared in type(self).model_fields.items():
            if name in kwargs and kwargs[name] is None and type(None) in get_args(declared.annotation):
                setattr(self, name, None)

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return list(stop_strings(value)) if isinstance(value, str | list | tuple) else value

    @field_validator("*")
    @classmethod
    def _check(cls, value: Any, info: ValidationInfo) -> Any:
        if problem := cls.problem(info.field_name or "", value):
            raise ValueError(problem)
        return value

    @classmethod
    def of(cls, settings: ChatSettings, service_id: str) -> "GPT2ChatSettings":
        return cls(service_id, **asdict(settings))

    def chat_settings(self) -> ChatSettings:
        return ChatSettings(**{setting.name: getattr(self, setting.name) for setting in fields(ChatSettings)})

    def unpack_extension_data(self) -> None:
        """Set the fields from what was given under other names. Semantic Kernel calls it with every change."""
        for other, name in _OTHER_NAMES.items():
            value = self.extension_data.pop(other, None)
            if self.extension_data.get(name) is None and value is not None:
                self.extension_data[name] = value
        super().unpack_extension_data()

    def ignored(self) -> set[str]:
        """Names of given settings that this model does not have, except for those that would change nothing."""
        given = {name for name, value in self.extension_data.items() if value is not None}
        neutral = {name for name in given & _NEUTRAL.keys() if self.extension_data[name] == _NEUTRAL[name]}
        return given - set(self.keys) - _BOOKKEEPING - neutral
