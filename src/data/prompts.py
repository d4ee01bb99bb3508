"""The one prompt template: how a conversation is written for the model, in training and in chat alike.

Prompt and response are encoded separately and joined as ids: encoded together, merges could cross the border, and the
model would be asked for tokens that it never saw in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from src.tokenizer.protocols.interfaces import Encoding

TEMPLATE = "instruction-response 1"
_SYSTEM = "### System:\n{}\n\n"
_INSTRUCTION = "### Instruction:\n{}\n\n"
_INPUT = "### Input:\n{}\n\n"
_RESPONSE = "### Response:\n"

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One message of a conversation. `input` is the material that an Alpaca instruction refers to, often empty."""

    role: Role
    text: str
    input: str = ""


def render_conversation(messages: Sequence[Message], encoding: Encoding) -> tuple[list[int], list[bool]]:
    """Ids of a conversation, and for each whether it is to be learned: responses and the end-of-text after each.

    The last message may be the user's; the ids then end where the response begins.
    """
    ids: list[int] = []
    learned: list[bool] = []
    for message in messages:
        if message.role == "assistant":
            part = [*encoding.encode_ordinary(message.text), encoding.eot_token]
        else:
            part = prompt_ids(message, encoding)
        ids += part
        learned += [message.role == "assistant"] * len(part)
    return ids, learned


def prompt_ids(message: Message, encoding: Encoding) -> list[int]:
    """Ids of a system or user message; a user message ends with the heading that the response follows."""
    if message.role == "system":
        return encoding.encode_ordinary(_fill(_SYSTEM, message.text))
    given = _fill(_INPUT, message.input) if message.input else ""
    return encoding.encode_ordinary(_fill(_INSTRUCTION, message.text) + given + _RESPONSE)


def headings() -> list[str]:
    """What the template itself writes."""
    return [_fill(part, "") for part in (_SYSTEM, _INSTRUCTION, _INPUT)] + [_RESPONSE]


def as_jinja() -> str:
    """The template in the language of Hugging Face's `chat_template`, for messages without `input`.

    It writes the same text. There all of it is encoded at once and a special token's spelling is that token; here parts
    are encoded one by one, as text. So ids differ after a system message, before an answer that begins with white
    space, and where a text spells <|endoftext|>.
    """

    def written(template: str) -> str:
        return "{{ '" + template.replace("\n", r"\n").replace("{}", "' + message['content'] + '") + "' }}"

    system, user = written(_SYSTEM), written(_INSTRUCTION + _RESPONSE)
    return (
        "{% for message in messages %}"
        f"{{% if message['role'] == 'system' %}}{system}"
        f"{{% elif message['role'] == 'user' %}}{user}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
        "{% else %}{{ raise_exception('the roles are system, user and assistant') }}{% endif %}"
        "{% endfor %}"
    )


def _fill(template: str, text: str) -> str:
    """The template with the text in its place; never `format`, which would read braces in the text."""
    before, after = template.split("{}")
    return before + text + after
