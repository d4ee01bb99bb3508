"""The prompt template: how a conversation becomes token ids, in training, in chat and in an export.

Each message is encoded separately and the ids are joined. Other libraries encode the whole text, and get the same ids.
No merge can cross from one message to the next: a message has no white space around it, and ends with a single line
break, where GPT-2's splitting always cuts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from src.tokenizer.byte_pairs import special_texts
from src.tokenizer.protocols.interfaces import Encoding

TEMPLATE = "instruction-response 2"  # the name that checkpoints record
OLD_TEMPLATE = "instruction-response 1"  # of checkpoints made before
_SYSTEM, _INSTRUCTION, _INPUT, _RESPONSE = "### System:\n", "### Instruction:\n", "### Input:\n", "### Response:\n"
_BEFORE_RESPONSE = f"\n\n{_RESPONSE}"
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


class Example(NamedTuple):
    """A conversation, or a part of one, as token ids. mask: for each id, whether it is supervised."""

    ids: list[int]
    mask: list[bool]

    def __repr__(self) -> str:
        return tuple.__repr__(self)  # as of a plain tuple: saved runs hold a hash of it


# For each template: the text after a system message, and whether messages are cleaned. Cleaning drops white space at
# both ends of a message and system messages without text, and breaks up special tokens that a message spells.
# OLD_TEMPLATE has two line breaks after a system message, which other libraries tokenise differently.
_RULES = {OLD_TEMPLATE: ("\n\n", False), TEMPLATE: ("\n", True)}


def check_template(name: str) -> None:
    """Raise ValueError for the name of an unknown template."""
    if name not in _RULES:
        raise ValueError(
            f"the model was tuned with the prompt template {name!r}, which is none of {', '.join(map(repr, _RULES))}; "
            "tune it again with python instruction_tune.py"
        )


def render_conversation(messages: Sequence[Message], encoding: Encoding, template: str = TEMPLATE) -> Example:
    """Return the ids of a conversation, and which of them are supervised.

    A response and the end-of-text token after it are supervised, unless the message says otherwise. If the last message
    is the user's, the ids end where the response begins. Raises ValueError for an unknown template.
    """
    ids: list[int] = []
    mask: list[bool] = []
    for message in messages:
        part = prompt_ids(message, encoding, template)
        if message.role == "assistant":
            part.append(encoding.eot_token)
        ids += part
        mask += [message.role == "assistant" and message.supervised] * len(part)
    return Example(ids, mask)


def prompt_ids(message: Message, encoding: Encoding, template: str = TEMPLATE) -> list[int]:
    """Ids of a message, without end-of-text. A user message ends with the heading of the response."""
    check_template(template)
    after_system, cleans = _RULES[template]
    text = f"{message.text}\n\n{_INPUT}{message.input}" if message.input else message.text
    if cleans:
        text = text.strip()
        for special in special_texts(encoding):
            text = text.replace(special, _broken(special))
    if message.role == "system":
        text = f"{_SYSTEM}{text}{after_system}" if text or not cleans else ""
    elif message.role == "user":
        text = f"{_INSTRUCTION}{text}{_BEFORE_RESPONSE}"
    return encoding.encode_ordinary(text)


def _broken(special: str) -> str:
    """A special token's text with a space in it: other libraries would take the text itself for the token."""
    return f"{special[0]} {special[1:]}"


def with_input(instruction: str, input: str) -> str:
    """One text that renders like an instruction with an input, for conversations whose messages have no input."""
    return f"{instruction}\n\n{_INPUT}{input}".rstrip()


def opening_text(system: str, facts: Sequence[str]) -> str:
    """The text of a chat's system message: what the model is asked to be, then what is known about the user."""
    return "\n\n".join(filter(None, (system, FACTS_HEADING + " ".join(facts) if facts else "")))


def headings() -> list[str]:
    """The headings of the template: its text without any message."""
    return [f"{heading}\n\n" for heading in (_SYSTEM, _INSTRUCTION, _INPUT)] + [_RESPONSE, FACTS_HEADING]


def as_jinja(encoding: Encoding, template: str = TEMPLATE, *, marks_answers: bool = True) -> str:
    """The template as a Hugging Face `chat_template`, for messages without `input`.

    apply_chat_template then gives the ids of `render_conversation`, and its assistant mask is the supervision mask.
    OLD_TEMPLATE's ids differ after a system message, for a message with white space around it, and if a message spells
    a special token. marks_answers: with `{% generation %}`, which not every program knows.
    """
    check_template(template)
    (after_system, cleans), content = _RULES[template], "message['content']"
    if cleans:
        broken = (f" | replace({_literal(text)}, {_literal(_broken(text))})" for text in special_texts(encoding))
        content = f"{content} | trim{''.join(broken)}"
    kept = "text" if cleans else "true"
    system = f"{_literal(_SYSTEM)} + text + {_literal(after_system)}"
    user = f"{_literal(_INSTRUCTION)} + text + {_literal(_BEFORE_RESPONSE)}"
    start, end = ("{% generation %}", "{% endgeneration %}") if marks_answers else ("", "")
    return (
        f"{{% for message in messages %}}{{% set text = {content} %}}"
        f"{{% if message['role'] == 'system' %}}{{% if {kept} %}}{{{{ {system} }}}}{{% endif %}}"
        f"{{% elif message['role'] == 'user' %}}{{{{ {user} }}}}"
        f"{{% elif message['role'] == 'assistant' %}}{start}{{{{ text + eos_token }}}}{end}"
        "{% else %}{{ raise_exception('the roles are system, user and assistant') }}{% endif %}{% endfor %}"
    )


def as_go_template(end_of_text: str, template: str = TEMPLATE) -> str:
    """The template in Ollama's form: the same text, for messages without white space around them."""
    check_template(template)
    after_system, _ = _RULES[template]
    return (
        f'{{{{ range .Messages }}}}{{{{ if eq .Role "system" }}}}{_SYSTEM}{{{{ .Content }}}}{after_system}'
        f'{{{{ else if eq .Role "user" }}}}{_INSTRUCTION}{{{{ .Content }}}}{_BEFORE_RESPONSE}'
        f"{{{{ else }}}}{{{{ .Content }}}}{end_of_text}{{{{ end }}}}{{{{ end }}}}"
    )


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
