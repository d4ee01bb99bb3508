"""The one prompt template: how a conversation becomes token ids, in training and in chat.

Prompt and response are encoded separately and their ids are joined. Encoded together, a merge could cross the boundary,
and in chat the model would have to continue tokens that it never saw in training.
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
FACTS_HEADING = "Known facts: "

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    input: the material that an Alpaca instruction refers to, often empty. supervised: False for an answer that is
    context only; the other roles are never supervised.
    """

    role: Role
    text: str
    input: str = ""
    supervised: bool = True


def render_conversation(messages: Sequence[Message], encoding: Encoding) -> tuple[list[int], list[bool]]:
    """Return the ids of a conversation, and for each id whether it is supervised.

    A response and the end-of-text token after it are supervised, unless the message says otherwise. If the last message
    is the user's, the ids end where the response begins.
    """
    ids: list[int] = []
    supervised: list[bool] = []
    for message in messages:
        if message.role == "assistant":
            part = [*encoding.encode_ordinary(message.text), encoding.eot_token]
        else:
            part = prompt_ids(message, encoding)
        ids += part
        supervised += [message.role == "assistant" and message.supervised] * len(part)
    return ids, supervised


def prompt_ids(message: Message, encoding: Encoding) -> list[int]:
    """Ids of a system or user message. A user message ends with the heading of the response."""
    if message.role == "system":
        return encoding.encode_ordinary(_fill(_SYSTEM, message.text))
    material = _fill(_INPUT, message.input) if message.input else ""
    return encoding.encode_ordinary(_fill(_INSTRUCTION, message.text) + material + _RESPONSE)


def with_input(instruction: str, input: str) -> str:
    """One text that renders like an instruction with an input, for conversations whose messages have no input."""
    return f"{instruction}\n\n{_fill(_INPUT, input)}".rstrip()


def opening_text(system: str, facts: Sequence[str]) -> str:
    """The text of a chat's system message: what the model is asked to be, then what is known about the user."""
    return "\n\n".join(filter(None, (system, FACTS_HEADING + " ".join(facts) if facts else "")))


def headings() -> list[str]:
    """The headings of the template: its text without any message."""
    return [_fill(part, "") for part in (_SYSTEM, _INSTRUCTION, _INPUT)] + [_RESPONSE, FACTS_HEADING]


def as_jinja() -> str:
    """The template as a Hugging Face `chat_template`, for messages without `input`.

    It renders the same text. But Hugging Face encodes that text as a whole, and turns a spelled-out special token into
    the token; we encode message by message, and only as text. So the ids differ after a system message, before an
    answer that begins with white space, and if a message contains <|endoftext|>.
    """

    def expression(template: str) -> str:
        return "{{ '" + template.replace("\n", r"\n").replace("{}", "' + message['content'] + '") + "' }}"

    system, user = expression(_SYSTEM), expression(_INSTRUCTION + _RESPONSE)
    return (
        "{% for message in messages %}"
        f"{{% if message['role'] == 'system' %}}{system}"
        f"{{% elif message['role'] == 'user' %}}{user}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
        "{% else %}{{ raise_exception('the roles are system, user and assistant') }}{% endif %}"
        "{% endfor %}"
    )


def _fill(template: str, text: str) -> str:
    """Insert the text into the template. Unlike `str.format`, this leaves braces in the text alone."""
    before, after = template.split("{}")
    return before + text + after
