"""The checks of exercises 46 to 49. The expected values are those of the project's sampler and of torch."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from exercises.checks.judging import call, given, judge, kind_of, random, require
from src.model.decoding.sampling import candidates
from src.model.decoding.settings import SamplingSettings

Answer = Callable[..., Any]


def check_temperature_softmax(function: Answer) -> None:
    """Exercise 46: compare with the softmax of the divided logits."""
    cases = [
        (torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 0.5),
        (3 * random(7, seed=1), 1.0),
        (random(5, seed=2), 2.0),
        (torch.tensor([1000.0, 1001.0], dtype=torch.float64), 0.5),
        (torch.tensor([2.0, 9.0, -3.0], dtype=torch.float64), 0),
        (torch.tensor([4.0, -math.inf, 5.0], dtype=torch.float64), 0.8),
    ]
    for logits, temperature in cases:
        if temperature == 0:
            expected = (logits == logits.max()).double()
            mistakes = {
                "temperature 0 needs a case of its own, or it divides by zero": (logits / 0).softmax(-1),
                "this is the id of the largest logit; return probabilities, (V,)": logits.argmax(),
                "temperature 0 is the limit of low temperatures, not plain softmax": logits.softmax(-1),
            }
        else:
            expected, plain = (logits / temperature).softmax(-1), logits.softmax(-1)
            exponentials = (logits / temperature).exp()
            mistakes = {
                "divide by the temperature before softmax: afterwards the sum is no longer 1": plain / temperature,
                "the temperature has no effect: divide the logits by it, before softmax": plain,
                "divide by the temperature; here the logits are multiplied by it": (logits * temperature).softmax(-1),
                "exp overflows: subtract the largest logit first, or use torch.softmax": (
                    exponentials / exponentials.sum()
                ),
                "these are the divided logits; softmax is missing": logits / temperature,
            }
        judge(function, {"logits": logits, "temperature": temperature}, expected, mistakes)


def check_keep_top_k(function: Answer) -> None:
    """Exercise 47: compare with the k largest logits, put in place one by one."""
    for logits, k in [
        (torch.tensor([1.0, 5.0, -2.0, 3.0]), 2),
        (random(9, seed=1), 4),
        (-2 - random(6, seed=2).abs(), 1),
        (torch.tensor([0.0, 2.0, 1.0]), 3),
        (torch.tensor([3.0, 1.0]), 10),
    ]:
        in_order = logits.sort(descending=True)
        expected = torch.full_like(logits, -math.inf)
        for place in in_order.indices[:k]:
            expected[place] = logits[place]
        top, fewest = in_order.values[: min(k, len(logits))], logits.sort().values[min(k, len(logits)) - 1]
        mistakes = {
            "a logit of 0 still has a probability: set the others to -inf": logits.where(logits >= top[-1], 0.0),
            "the k-th largest stays too": logits.where(logits > top[-1], -math.inf),
            "these are the k largest alone; keep the shape (V,), so that each logit keeps its token": top,
            "these are the k smallest logits": logits.where(logits <= fewest, -math.inf),
            "these are the first k logits; the k largest may be anywhere": logits.where(
                torch.arange(len(logits)) < k, -math.inf
            ),
            "no logit was removed": logits,
        }
        judge(function, {"logits": logits, "k": k}, expected, mistakes)


def check_keep_top_p(function: Answer) -> None:
    """Exercise 48: compare with the project's sampler, also if no sum is exactly p and if one token reaches p alone."""
    skewed = torch.tensor([0.05, 0.5, 0.15, 0.3], dtype=torch.float64)
    for probabilities, p in [
        (skewed, 0.7),
        (skewed, 0.9),
        (skewed, 0.3),
        (skewed, 1.0),
        ((2 * random(12, seed=1)).softmax(0), 0.8),
    ]:
        ids, kept = candidates(probabilities.log(), (), SamplingSettings(top_k=len(probabilities), top_p=p))
        expected = torch.zeros_like(probabilities)
        expected[ids] = probabilities[ids] / probabilities[ids].sum()
        judge(function, {"probabilities": probabilities, "p": p}, expected, _top_p_mistakes(probabilities, p, ids))


def _top_p_mistakes(probabilities: Tensor, p: float, ids: Tensor) -> dict[str, Tensor]:
    """The answers (V,) that common mistakes lead to. ids: the tokens that stay, most likely first."""
    in_order = probabilities.sort(descending=True)
    nucleus = torch.zeros_like(probabilities).index_fill(0, ids, 1.0) * probabilities
    short = in_order.values.where(in_order.values.cumsum(0) <= p, 0.0)
    without_crossing = torch.zeros_like(probabilities).scatter(0, in_order.indices, short)
    first = probabilities.where(probabilities.cumsum(0) - probabilities < p, 0.0)
    sorted_nucleus = probabilities[ids] / probabilities[ids].sum()
    padded = torch.cat([sorted_nucleus, probabilities.new_zeros(len(probabilities) - len(ids))])
    return {
        "the token that crosses p belongs to the nucleus; with a small p nothing would be left": (
            without_crossing / without_crossing.sum()
        ),
        "the token that crosses p belongs to the nucleus, and the result must sum to 1": without_crossing,
        "divide by the sum of what is left, so that it is 1 again": nucleus,
        "sort by probability first; these are the first tokens of the vocabulary": first / first.sum(),
        "the result is still sorted: put each probability back in the place of its token": padded,
        "these are the probabilities of the nucleus alone; keep the shape (V,)": sorted_nucleus,
        "p limits the sum of the probabilities, not each one": (
            (big := probabilities.where(probabilities >= 1 - p, 0.0)) / big.sum()
        ),
        "no token was removed": probabilities,
    }


V, END = 8, 7


def bigram_model(ids: Tensor) -> Tensor:
    """Logits (1, T, V) that depend on each token and on the first one of the input."""
    table = (1.3 * random(V, V, seed=88)).float()
    return table[ids] + 0.7 * table[ids[:, :1]].roll(1, -1)


def check_generate(function: Answer) -> None:
    """Exercise 49: compare with the project's sampler in a loop, for several seeds and settings."""
    plain = {"temperature": 1.0, "top_k": V, "top_p": 1.0, "context_length": 4, "end_of_text": END}
    changes: list[dict[str, Any]] = [{}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.8, "temperature": 2.0}]
    for seed, change in product(range(4), changes):
        settings, prompt = {**plain, **change}, [3, 1] if seed else [0]
        where = f"{given({'prompt': prompt, 'n_tokens': 12, 'settings': settings})}, with the seed {seed}"
        answer = _run(function, prompt, settings, seed)
        expected = _loop(prompt, settings, seed)
        require(answer is not None, f"{where}, got None: the function needs a return")
        require(isinstance(answer, list), f"{where}, got {kind_of(answer)}, expected a list of ids")
        numbers = all(isinstance(token, int) for token in answer)
        require(numbers, f"{where}, the list must hold plain numbers: use .item()")
        hints = [f": {hint}" for hint, wrong in _generate_mistakes(prompt, settings, seed).items() if answer == wrong]
        hints += [": draw each id with torch.multinomial(probabilities, 1, generator=generator)"]
        require(answer == expected, f"{where}, got {answer}, expected {expected}{hints[0]}")


def _run(function: Answer, prompt: list[int], settings: dict[str, Any], seed: int) -> Any:
    """The answer; raises AssertionError if it runs the model on too many tokens or draws from the global generator."""
    lengths = []

    def model(ids: Tensor) -> Tensor:
        require(ids.dim() == 2, f"the model got ids of shape {tuple(ids.shape)}, expected (1, T)")
        lengths.append(ids.shape[1])
        return bigram_model(ids)

    state = torch.random.get_rng_state()
    generator = torch.Generator().manual_seed(seed)
    arguments = {"model": model, "prompt": prompt, "n_tokens": 12, "settings": settings, "generator": generator}
    answer = call(function, arguments)
    unused = torch.equal(state, torch.random.get_rng_state())
    require(unused, "torch's global random state changed: use torch.multinomial(..., generator=generator)")
    longest, context = max(lengths, default=0), settings["context_length"]
    advice = "pass only the last context_length tokens"
    require(longest <= context, f"the model got {longest} tokens, but context_length is {context}: {advice}")
    return answer


def _loop(
    prompt: list[int],
    settings: dict[str, Any],
    seed: int,
    window: Callable[[list[int], int], list[int]] = lambda ids, context: ids[-context:],
    position: int = -1,
    stop: bool = True,
    greedy: bool = False,
    top_p_first: bool = False,
) -> list[int]:
    """Ids generated with the project's sampler, or with a mistake."""
    ids, generator = list(prompt), torch.Generator().manual_seed(seed)
    temperature = 0.0 if greedy else float(settings["temperature"])
    chosen = SamplingSettings(temperature=temperature, top_k=settings["top_k"], top_p=settings["top_p"])
    for _ in range(12):
        logits = bigram_model(torch.tensor([window(ids, settings["context_length"])]))[0, position]
        if top_p_first:
            kept, _ = candidates(logits, (), replace(chosen, temperature=1.0))
            logits = torch.full_like(logits, -math.inf).index_copy(0, kept, logits[kept])
            kept, probabilities = candidates(logits, (), replace(chosen, top_p=1.0))
        else:
            kept, probabilities = candidates(logits, (), chosen)
        weights = torch.zeros(V).index_copy(0, kept, probabilities)
        ids.append(int(torch.multinomial(weights, 1, generator=generator)))
        if stop and ids[-1] == settings["end_of_text"]:
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


def _generate_mistakes(prompt: list[int], settings: dict[str, Any], seed: int) -> dict[str, list[int]]:
    """The answers that common mistakes lead to."""
    expected, endless = _loop(prompt, settings, seed), _loop(prompt, settings, seed, stop=False)
    return {
        "the prompt is not part of the result": prompt + expected,
        "end_of_text is not part of the result": [*expected, settings["end_of_text"]],
        "stop at end_of_text": endless,
        "the logits of the last position belong to the next token; here another position was used": _loop(
            prompt, settings, seed, position=0
        ),
        "the model always gets the prompt alone: append each new id": _loop(
            prompt, settings, seed, window=lambda ids, _: prompt
        ),
        "the model gets only the newest token; it needs all of them, up to context_length": _loop(
            prompt, settings, seed, window=lambda ids, _: ids[-1:]
        ),
        "the context keeps the first tokens; it must keep the last ones": _loop(
            prompt, settings, seed, window=lambda ids, context: ids[:context]
        ),
        "these are the most likely tokens: draw from the probabilities": _loop(prompt, settings, seed, greedy=True),
        "top_p comes last: the temperature changes the probabilities that it sums": _loop(
            prompt, settings, seed, top_p_first=True
        ),
        "top_k has no effect": _loop(prompt, {**settings, "top_k": V}, seed),
        "top_p has no effect": _loop(prompt, {**settings, "top_p": 1.0}, seed),
        "the temperature has no effect": _loop(prompt, {**settings, "temperature": 1.0}, seed),
        "these are n_tokens - 1 ids": expected[:11],
    }


CHECKS: dict[int, tuple[str, Answer]] = {
    46: ("temperature_softmax", check_temperature_softmax),
    47: ("keep_top_k", check_keep_top_k),
    48: ("keep_top_p", check_keep_top_p),
    49: ("generate", check_generate),
}
