"""Worked answers to exercises 39 to 45, explained in losses.md. Try the exercises first.

B batch, T tokens, N positions, V vocabulary, P pairs of answers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises.solutions.hard_attention import log_sum_exp

IGNORE = -100  # the target of a position without a loss


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of -log(probability of the target), in nats: logits (N, V) and targets, int64 (N,), to ()."""
    target_logits = logits[torch.arange(len(targets)), targets]  # (N,)
    return (log_sum_exp(logits) - target_logits).mean()


def perplexity(losses: Tensor, counts: Tensor) -> Tensor:
    """The perplexity of a text that was evaluated in N batches: ()."""
    return torch.exp((losses * counts).sum() / counts.sum())


def next_token_batch(ids: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each int64 (B, length), from the ids of a text, int64 (N,)."""
    places = starts[:, None] + torch.arange(length)  # (B, length)
    return ids[places], ids[places + 1]


def response_targets(prompt: list[int], response: list[int], end_of_text: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each int64 (T,), of a prompt, its response and the end-of-text token."""
    ids = torch.tensor([*prompt, *response, end_of_text])
    targets = ids[1:].clone()
    targets[: len(prompt) - 1] = IGNORE  # the last token of the prompt predicts the first one of the response
    return ids[:-1], targets


def response_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of all positions with a target: logits (B, T, V) and targets, int64 (B, T), to ()."""
    supervised = targets != IGNORE  # (B, T)
    return cross_entropy(logits[supervised], targets[supervised])


def response_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each whole response: logits (B, T, V) and targets, int64 (B, T), to (B,)."""
    supervised = targets != IGNORE  # (B, T)
    some_token = targets.where(supervised, 0)[..., None]  # -100 is no index
    target_logits = logits.gather(2, some_token)[..., 0]  # (B, T)
    return ((target_logits - log_sum_exp(logits)) * supervised).sum(dim=1)


def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """The DPO loss of each pair: four tensors of log-probabilities of whole responses, each (P,), to (P,)."""
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    return -F.logsigmoid(beta * (chosen - rejected))
