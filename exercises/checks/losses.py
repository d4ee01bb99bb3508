"""The checks of exercises 39 to 45. The expected values are those of torch's own losses and of the project's."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises.checks.forbidden import forbids
from exercises.checks.hard_tools import parts
from exercises.checks.judging import call, compare, given, judge, random
from src.data.batching import IGNORE
from src.training.losses import dpo_loss

Answer = Callable[..., Any]


@forbids(("cross_entropy|log_softmax|nll_loss|logsumexp", "write it with exp, sum and log"))
def check_cross_entropy(function: Answer) -> None:
    """Exercise 39: compare with F.cross_entropy, also for logits whose exponentials overflow or underflow."""
    cases = [
        (torch.tensor([[0.0, 0.0], [1.0, 3.0]], dtype=torch.float64), torch.tensor([0, 1])),
        (3 * random(5, 7, seed=1), torch.tensor([6, 0, 3, 3, 1])),
        (random(4, 4, seed=2), torch.tensor([1, 0, 2, 0])),
        (torch.tensor([[1000.0, 0.0]], dtype=torch.float64), torch.tensor([0])),
        (torch.tensor([[-500.0, 500.0]], dtype=torch.float64), torch.tensor([0])),
        (torch.tensor([[1000.0, 999.0], [-1000.0, -999.0]], dtype=torch.float64), torch.tensor([1, 1])),
    ]
    for logits, targets in cases:
        losses = F.cross_entropy(logits, targets, reduction="none")
        arguments = {"logits": logits, "targets": targets}
        judge(function, arguments, losses.mean(), _cross_entropy_mistakes(logits, targets, losses))


def _cross_entropy_mistakes(logits: Tensor, targets: Tensor, losses: Tensor) -> dict[str, Tensor]:
    """The answers that common mistakes lead to; losses (N,) are the right ones of the positions."""
    N, V = logits.shape
    rows = torch.arange(N)
    mistakes = {
        "exp overflows for large logits: subtract the largest logit of each row first": (
            logits.exp().sum(1).log() - logits[rows, targets]
        ).mean(),
        "next to a larger row, a small one underflows to 0: subtract each row's own largest logit": (
            (logits - logits.max()).exp().sum(1).log() + logits.max() - logits[rows, targets]
        ).mean(),
        "the softmax of a small logit underflows to 0, and log(0) is -inf: take the logarithm by hand": (
            -logits.softmax(1).log()[rows, targets].mean()
        ),
        "this is the sum of the losses; return their mean": losses.sum(),
        "these are the losses of all positions; return their mean": losses,
        "the sign is wrong: a log-probability is never positive, a loss never negative": -losses.mean(),
        "this is the mean probability of the targets; take -log of each": logits.softmax(1)[rows, targets].mean(),
        "take the mean of the logarithms, not the logarithm of the mean": (-losses).exp().mean().log().neg(),
        "this is the mean logit of the targets; subtract it from the log of the sum of all exponentials": (
            logits[rows, targets].mean()
        ),
        "these are bits; use the natural logarithm": losses.mean() / torch.tensor(2.0).double().log(),
        "the mean runs over all V log-probabilities; take the one of the target": -logits.log_softmax(1).mean(),
    }
    if N == V:
        mistakes["softmax runs over the vocabulary, the last dimension, not over the positions"] = -logits.log_softmax(
            0
        )[rows, targets].mean()
    return mistakes


def check_perplexity(function: Answer) -> None:
    """Exercise 40: compare with the exponential of the mean over all tokens, for batches of different lengths."""
    for losses, counts in [([1.0], [3]), ([2.0, 4.0], [30, 10]), ([3.5, 3.0, 5.0], [64, 64, 7])]:
        loss, count = torch.tensor(losses, dtype=torch.float64), torch.tensor(counts)
        mean = sum(a * n for a, n in zip(losses, counts, strict=True)) / sum(counts)
        share = count / count.sum()
        mistakes = {
            "the last batch is smaller: weight the loss of each batch by its number of tokens": loss.mean().exp(),
            "this is a mean of perplexities; take the exponential of the mean loss": (loss.exp() * share).sum(),
            "this is the plain mean of perplexities; take the exponential of the mean loss": loss.exp().mean(),
            "the losses are in nats: use exp, not a power of 2": torch.tensor(2.0**mean),
            "this is the mean loss; take its exponential": torch.tensor(mean),
            "take the exponential of the mean loss, not of the sum": (loss * count).sum().exp(),
        }
        judge(function, {"losses": loss, "counts": count}, torch.tensor(mean).double().exp(), mistakes)


def check_next_token_batch(function: Answer) -> None:
    """Exercise 41: compare with slices of the text."""
    text = torch.tensor([50, 41, 32, 23, 14, 5, 96, 87])
    for starts, length in [([2], 3), ([0, 3, 1], 4), ([0], 7), ([5, 0], 2)]:
        slices = [[text[s + shift : s + shift + length] for s in starts] for shift in (0, 1)]
        inputs, targets = (torch.stack(rows) for rows in slices)
        arguments = {"ids": text, "starts": torch.tensor(starts), "length": length}
        answer = parts(given(arguments), call(function, arguments), 2)
        wrong_inputs = {
            "inputs and targets are swapped": targets,
            "the inputs have the length `length`; the targets begin one token later": inputs[:, :-1],
            "the window has `length` + 1 tokens; the inputs are all but the last": torch.cat(
                [inputs, targets[:, -1:]], 1
            ),
        }
        wrong_targets = {
            "the targets are not shifted: the target of a token is the next one": inputs,
            "the shift went the wrong way: the target is the next token, not the one before": inputs.roll(1, 1),
            "the last target is the token after the window, not the first one of the window": inputs.roll(-1, 1),
            "the target of the last token is missing: the window needs `length` + 1 tokens": targets[:, :-1],
        }
        compare(f"{given(arguments)}, as inputs", answer[0], inputs, wrong_inputs)
        compare(f"{given(arguments)}, as targets", answer[1], targets, wrong_targets)


def check_response_targets(function: Answer) -> None:
    """Exercise 42: compare with a mask written out token by token."""
    for prompt, response in [([11, 12, 13], [21, 22]), ([11], [21, 22, 23]), ([11, 12], [])]:
        ids = [*prompt, *response, 99]
        inputs = torch.tensor(ids[:-1])
        targets = torch.tensor([ids[t + 1] if t + 1 >= len(prompt) else IGNORE for t in range(len(ids) - 1)])
        shifted, unshifted = torch.tensor(ids[1:]), inputs.clone()
        one_late, one_early, everything = targets.clone(), targets.clone(), shifted
        one_late[len(prompt) - 1] = IGNORE
        one_early[max(0, len(prompt) - 2)] = ids[max(1, len(prompt) - 1)]
        unshifted[: len(prompt)] = IGNORE
        no_end = targets.clone()
        no_end[-1] = IGNORE
        mistakes = {
            "the targets are not shifted: the target of a position is the next token": unshifted,
            "the prompt has a loss too: its targets are IGNORE": everything,
            "the first token of the response has no loss: the last token of the prompt predicts it": one_late,
            "the last token of the prompt has a loss: it is one position too many": one_early,
            "end-of-text has no loss, so the model never learns to stop": no_end,
            "these are the tokens without the end of text: put it after the response": targets[:-1],
        }
        arguments = {"prompt": prompt, "response": response, "end_of_text": 99}
        answer = parts(given(arguments), call(function, arguments), 2)
        wrong_inputs = {
            "end-of-text needs no prediction after it: the inputs are all tokens but the last": torch.tensor(ids),
            "inputs and targets are swapped": targets,
            "the prompt belongs to the inputs; only its targets are IGNORE": torch.tensor(ids[len(prompt) : -1]),
            "the inputs keep the tokens of the prompt; only targets are IGNORE": torch.cat(
                [torch.full((len(prompt),), IGNORE), inputs[len(prompt) :]]
            ),
        }
        compare(f"{given(arguments)}, as inputs", answer[0], inputs, wrong_inputs)
        compare(f"{given(arguments)}, as targets", answer[1], targets, mistakes)


def masked_case(seed: int) -> tuple[Tensor, Tensor]:
    """Logits (3, 5, 6), and targets (3, 5) whose rows have 1, 2 and 4 positions with a loss."""
    x = IGNORE
    targets = torch.tensor([[x, x, x, x, 2], [x, x, 5, 0, x], [x, 1, 4, 0, 3]])
    return 2 * random(3, 5, 6, seed=seed), targets


def check_response_loss(function: Answer) -> None:
    """Exercise 43: compare with F.cross_entropy's ignore_index, for rows with unequal numbers of targets."""
    for seed in (1, 2):
        logits, targets = masked_case(seed)
        losses = F.cross_entropy(logits.mT, targets, reduction="none")  # 0 where the target is IGNORE
        supervised = targets != IGNORE
        unmasked = F.cross_entropy(logits.mT, targets.clamp(min=0), reduction="none")
        mistakes = {
            "divide by the number of positions with a target, not by all positions": losses.mean(),
            "this is a mean of the rows' means; every position with a target has the same weight": (
                losses.sum(1) / supervised.sum(1)
            ).mean(),
            "positions without a target have a loss here; leave them out": unmasked.mean(),
            "-100 was used as an index; leave out the positions with the target IGNORE": (
                F.cross_entropy(logits.mT, targets % 6, reduction="none").mean()
            ),
            "this is the sum of the losses; return their mean": losses.sum(),
            "this is the sum divided by the number of rows; divide by the number of positions with a target": (
                losses.sum() / len(losses)
            ),
        }
        judge(function, {"logits": logits, "targets": targets}, losses.sum() / supervised.sum(), mistakes)


def check_response_logprobs(function: Answer) -> None:
    """Exercise 44: compare with F.cross_entropy, summed by row."""
    for seed in (3, 4):
        logits, targets = masked_case(seed)
        supervised = targets != IGNORE
        logprobs = -F.cross_entropy(logits.mT, targets, reduction="none")
        unmasked = logits.log_softmax(2).gather(2, targets.clamp(min=0)[..., None])[..., 0]
        mistakes = {
            "this is the mean log-probability of the tokens; DPO needs the sum": logprobs.sum(1) / supervised.sum(1),
            "the sign is wrong: this is the loss, and a log-probability is never positive": -logprobs.sum(1),
            "positions with the target IGNORE are included": unmasked.sum(1),
            "each response has a log-probability of its own; sum over the tokens only": logprobs.sum(),
            "these are the log-probabilities of the tokens; sum them up": logprobs,
            "these are sums of logits; take log-probabilities": (
                logits.gather(2, targets.clamp(min=0)[..., None])[..., 0] * supervised
            ).sum(1),
            "these are sums of probabilities; take their logarithms first": (logprobs.exp() * supervised).sum(1),
            "these are probabilities; return their logarithms": logprobs.sum(1).exp(),
        }
        judge(function, {"logits": logits, "targets": targets}, logprobs.sum(1), mistakes)


def check_dpo_loss(function: Answer) -> None:
    """Exercise 45: compare with the project's dpo_loss, also for margins whose sigmoid underflows."""
    names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
    cases = [
        ([torch.tensor([-20.0]), torch.tensor([-30.0]), torch.tensor([-22.0]), torch.tensor([-29.0])], 0.1),
        ([-10 + 3 * random(4, seed=seed) for seed in range(4)], 0.1),
        ([-20 + 3 * random(3, seed=seed) for seed in range(4, 8)], 0.5),
        ([torch.tensor([-3000.0]), torch.tensor([-10.0]), torch.tensor([-10.0]), torch.tensor([-10.0])], 0.5),
    ]
    for logprobs, beta in cases:
        logprobs = [values.double() for values in logprobs]
        pc, pr, rc, rr = logprobs
        expected = dpo_loss(pc, pr, rc, rr, beta=beta)
        margin = beta * ((pc - rc) - (pr - rr))
        mistakes = {
            "sigmoid underflows to 0, and log(0) is -inf: use F.logsigmoid": -torch.sigmoid(margin).log(),
            "beta is missing": -F.logsigmoid(margin / beta),
            "the margin has the wrong sign: chosen and rejected, or policy and reference, are swapped": (
                -F.logsigmoid(-margin)
            ),
            "the reference is missing: subtract its log-probabilities": -F.logsigmoid(beta * (pc - pr)),
            "the log-ratio of the rejected answer is subtracted, not added": -F.logsigmoid(beta * (pc - rc + pr - rr)),
            "the sign is wrong: return minus the logarithm of the sigmoid": F.logsigmoid(margin),
            "take minus the logarithm of the sigmoid": torch.sigmoid(margin),
            "this is minus the margin; the logarithm of the sigmoid is missing": -margin,
            "multiply by beta inside the sigmoid, not outside": -beta * F.logsigmoid(margin / beta),
            "return the loss of each pair, not their mean": expected.mean(),
        }
        judge(function, {**dict(zip(names, logprobs, strict=True)), "beta": beta}, expected, mistakes)


CHECKS: dict[int, tuple[str, Answer]] = {
    39: ("cross_entropy", check_cross_entropy),
    40: ("perplexity", check_perplexity),
    41: ("next_token_batch", check_next_token_batch),
    42: ("response_targets", check_response_targets),
    43: ("response_loss", check_response_loss),
    44: ("response_logprobs", check_response_logprobs),
    45: ("dpo_loss", check_dpo_loss),
}
