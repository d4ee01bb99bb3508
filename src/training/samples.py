"""Answers of the model while it is trained."""

from collections.abc import Sequence

from src.data.prompts import Message, render_conversation
from src.model.generate import TextGenerator


def sample_answers(generator: TextGenerator, prompts: Sequence[Sequence[Message]], max_tokens: int) -> str:
    """The last question of each prompt and the model's greedy answer, to show during training."""
    lines = []
    for messages in prompts:
        ids, _ = render_conversation(messages, generator.encoding)
        question = messages[-1].text.splitlines()[0][:100]
        lines.append(f"{question}\n  -> {generator.generate(ids, max_tokens, temperature=0)}")
    return "\n".join(lines)
