"""Your answers to exercises 39 to 45: replace each `raise`. The tasks are in losses_exercises.md.

Write in exercises/answers/losses.py, a copy of this file: `python -m exercises.start` creates it.

Later answers may call earlier ones. Check an answer with `python -m exercises.check 39`.

B batch, T tokens, N positions, V vocabulary, P pairs of answers.
"""

import math  # noqa: F401

import torch  # noqa: F401
from torch import Tensor

IGNORE = -100  # the target of a position without a loss


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of -log(probability of the target), in nats: logits (N, V) and targets, int64 (N,), to ().

    Right for logits of any size.
    """
    raise NotImplementedError("exercise 39")


def perplexity(losses: Tensor, counts: Tensor) -> Tensor:
    """The perplexity of a text that was evaluated in N batches: ().

    losses (N,): the mean loss of each batch, in nats. counts, int64 (N,): the number of tokens in each.
    """
    raise NotImplementedError("exercise 40")


def next_token_batch(ids: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each int64 (B, length), from the ids of a text, int64 (N,).

    Row b of the inputs begins at starts[b]; starts is int64 (B,).
    """
    raise NotImplementedError("exercise 41")


def response_targets(prompt: list[int], response: list[int], end_of_text: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each int64 (T,), of a prompt, its response and the end-of-text token.

    The target is IGNORE at the positions whose next token belongs to the prompt.
    """
    raise NotImplementedError("exercise 42")


def response_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of all positions with a target: logits (B, T, V) and targets, int64 (B, T), to ().

    Positions with the target IGNORE have no loss.
    """
    raise NotImplementedError("exercise 43")


def response_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each whole response: logits (B, T, V) and targets, int64 (B, T), to (B,).

    Positions with the target IGNORE do not belong to the response.
    """
    raise NotImplementedError("exercise 44")


def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """The DPO loss of each pair: four tensors of log-probabilities of whole responses, each (P,), to (P,)."""
    raise NotImplementedError("exercise 45")
