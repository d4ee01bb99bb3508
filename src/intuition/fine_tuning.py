"""From a model that continues a text to one that answers. Run it: python -m src.intuition fine-tuning"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from src.intuition.terminal import bars, heading, lines, say, suggest

PRETRAINING = (
    "what is the capital of France ?",
    "what is the capital of Italy ?",
    "who is the king of France ?",
    "what is the capital of Spain ?",
    "who is the king of Spain ?",
)
EXAMPLES = ("what is the capital of France ? Paris .", "what is the capital of Italy ? Rome .")
EPOCHS = 3
PROMPTS = ("what is the capital of France ?", "what is the capital of Spain ?")
CONTEXT = 2  # words that the model looks back
MAX_WORDS = 8

Model = dict[tuple[str, ...], Counter[str]]


def learn(model: Model, text: str) -> None:
    """Count which word follows each two words of a text, on top of what the model has counted before."""
    words = text.split()
    for i in range(CONTEXT, len(words)):
        model[tuple(words[i - CONTEXT : i])][words[i]] += 1


def likely_next(model: Model, words: Sequence[str]) -> dict[str, float]:
    """The probability of each word that was seen after the last two words, the most likely first."""
    counts = model.get(tuple(words[-CONTEXT:]), Counter())
    return {word: count / counts.total() for word, count in counts.most_common()}


def continue_text(model: Model, prompt: str) -> str:
    """The model's continuation of the prompt if it always takes the most likely word, up to a full stop."""
    words = prompt.split()
    written: list[str] = []
    while len(written) < MAX_WORDS and "." not in written and (following := likely_next(model, [*words, *written])):
        written.append(next(iter(following)))
    return " ".join(written)


def fine_tuning() -> None:
    """Show a counting model before and after it is trained on answers."""
    heading("fine-tuning", "from a text to an answer")
    say("""Where are we? A text becomes tokens, and the tokens vectors. Attention and MLPs turn the vectors into a
        score for each possible next token, and softmax turns the scores into probabilities. Gradient descent makes
        the text that it trains on more likely: that is pretraining. Sampling generates a text. Nothing in this makes
        an answer likely. Here is a model that counts, as in `next-word`, but looks back two words. It has read
        this:""")
    model: Model = defaultdict(Counter)
    learn(model, " ".join(PRETRAINING))
    lines(PRETRAINING)
    _show(model, PROMPTS[0])
    say(f"""It continues the text in its most likely way, with another question. To make it answer, continue its
        training with texts in which answers follow questions. That is fine-tuning: the model keeps what it knows, the
        loss is the same, and only the text is different. Here it reads {len(EXAMPLES)} examples, {EPOCHS} times over
        (epochs):""")
    lines(EXAMPLES)
    for example in EXAMPLES * EPOCHS:
        learn(model, example)
    _show(model, PROMPTS[0])
    say("And a question that is not among the examples:")
    _show(model, PROMPTS[1])
    say("""A model that counts learns answers by heart and no more. The small model of `python main.py` is not much
        better: it learns 30 answers by heart. A larger model has read more. It also learns from the examples that an
        answer follows a question, and it finds the answer in what it has read.""")
    suggest("""set EPOCHS in src/intuition/fine_tuning.py to 20. How sure of "Paris" is the model now, and why is it
        never certain?""")


def _show(model: Model, prompt: str) -> None:
    written = continue_text(model, prompt)
    lines([f"{prompt}  ->  {written}" + " ..." * (not written.endswith("."))])
    bars(likely_next(model, prompt.split()))
