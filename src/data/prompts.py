"""The one prompt template: how a conversation is written for the model, in training and in chat alike.

Prompt and response are encoded separately and joined as ids: encoded together, merges could cross the border, and the
model would be asked for tokens that it never saw in training.
"""

from collections.abc import Sequence
from typing import Protocol

from src.tokenizer.protocols.interfaces import Encoding

TEMPLATE = "instruction-response 1"
_SYSTEM = "### System:\n{}\n\n"
_INSTRUCTION = "### Instruction:\n{}\n\n"
_INPUT = "### Input:\n{}\n\n"
_RESPONSE = "### Response:\n"


class Turn(Protocol):
    """One turn of a conversation; `input` is the material that an instruction speaks of, often empty."""

    @property
    def role(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def input(self) -> str: ...


def render_conversation(turns: Sequence[Turn], encoding: Encoding) -> tuple[list[int], list[bool]]:
    """Ids of a conversation, and for each whether it is to be learned: responses and the end-of-text after each.

    The last turn may be the user's; the ids then end where the response begins.
    """
    ids: list[int] = []
    learned: list[bool] = []
    for turn in turns:
        if turn.role == "assistant":
            part = [*encoding.encode_ordinary(turn.text), encoding.eot_token]
        else:
            part = prompt_ids(turn, encoding)
        ids += part
        learned += [turn.role == "assistant"] * len(part)
    return ids, learned


def prompt_ids(turn: Turn, encoding: Encoding) -> list[int]:
    """Ids of a system or user turn; a user turn ends with the heading that the response follows."""
    if turn.role == "system":
        return encoding.encode_ordinary(_fill(_SYSTEM, turn.text))
    given = _fill(_INPUT, turn.input) if turn.input else ""
    return encoding.encode_ordinary(_fill(_INSTRUCTION, turn.text) + given + _RESPONSE)


def headings() -> list[str]:
    """What the template itself writes."""
    return [_fill(part, "") for part in (_SYSTEM, _INSTRUCTION, _INPUT)] + [_RESPONSE]


def as_jinja() -> str:
    """The template in the language of Hugging Face's `chat_template`, for turns without `input`.

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
