"""The smallest language model: count which word follows which. Run it: python -m src.intuition next-word"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from src.intuition.terminal import bars, heading, lines, say, suggest
from src.tokenizer import load_gpt2_encoding

TEXT = "the cat sat . the cat ran . the dog sat . the cat sat ."
SENTENCES = ("the cat sat .", "the dog sat .", "the dog ran .")

Model = Mapping[str, Counter[str]]


def count_followers(words: Sequence[str]) -> Model:
    """For each word, how often each word came right after it."""
    model: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for word, follower in zip(words, words[1:], strict=False):
        model[word][follower] += 1
    return model


def probability(model: Model, word: str, follower: str) -> float:
    """The share of the occurrences of `word` that were followed by `follower`; 0 for an unseen word."""
    counts = model.get(word, Counter())
    return counts[follower] / counts.total() if counts else 0.0


def loss(model: Model, words: Sequence[str]) -> float:
    """The mean of -ln(probability) over the words after the first: the loss that a training run prints."""
    probs = [probability(model, *pair) for pair in zip(words, words[1:], strict=False)]
    return sum(-math.log(prob) if prob else math.inf for prob in probs) / len(probs)


def next_word() -> None:
    """Show a language model that counts, and the loss and perplexity of three sentences."""
    heading("next-word", "a language model in ten lines")
    words = TEXT.split()
    model = count_followers(words)
    say("""A language model says how likely each token is to come next. That is all it does. The smallest one
        counts: it reads a text and notes which word followed which.""")
    lines([f"text  {TEXT}"])
    for word in list(model)[:2]:
        print(f'  After "{word}", seen {model[word].total()} times:\n')
        bars({follower: probability(model, word, follower) for follower in sorted(model[word])})
    say("""How good is it? Take a sentence and see how likely the model finds each next word. The surprise at a
        word is -ln(probability): 0 for a sure thing, more for an unlikely one. The mean surprise is the loss, the
        number that training reduces.""")
    for sentence in SENTENCES:
        _show_surprises(model, sentence.split())
    say("""The last number is exp(loss), the perplexity: the model is as unsure as if it had to guess among
        that many equally likely words. A pair that was never seen has probability 0, and one such pair makes the
        loss of its sentence infinite, even if the sentence is fine. Counting can't conclude from cats that run
        that dogs can run, too. GPT-2 can: it learns what words have in common, and it looks back further than one
        word.""")
    vocabulary = load_gpt2_encoding().n_vocab
    say(f"""One number to remember: before training, GPT-2 finds all of its {vocabulary:,} tokens about equally
        likely, so its loss starts near ln({vocabulary:,}) = {math.log(vocabulary):.2f}. Look for it in the loss
        that a run reports before training.""")
    suggest("""add " the dog ran ." to the end of TEXT in src/intuition/next_word.py. The third loss is finite
        now, and the other two are higher. Why?""")


def _show_surprises(model: Model, words: Sequence[str]) -> None:
    """Print probability and surprise of each word of a sentence, then its loss and perplexity."""
    table = [" ".join(words)]
    for word, follower in zip(words, words[1:], strict=False):
        prob = probability(model, word, follower)
        surprise = -math.log(prob) if prob else math.inf
        # abs() turns -0.0 into 0.0.
        table.append(f"  {word:>4} -> {follower:<4} probability {prob:.2f}   surprise {abs(surprise):.2f}")
    mean = loss(model, words)
    lines([*table, f"  loss {abs(mean):.2f}, perplexity {math.exp(mean):.2f}"])
