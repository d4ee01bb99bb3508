"""From examples to batches. Everything here is pure and stays on the CPU; the training loop moves batches on.

B rows, T tokens of a row, P pairs.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

B = TypeVar("B", bound="Batch")

IGNORE = -100  # target of a position with nothing to learn; the value that PyTorch's cross-entropy skips


@dataclass(frozen=True)
class Batch:
    """Inputs (B, T) and targets (B, T), both int64; a target is the token after its input, or IGNORE.

    segments: where texts stand behind each other in one row, for each its tokens and the number of the earlier segment
    that it goes on from; None where every row is one text.
    """

    inputs: Tensor
    targets: Tensor
    packing: tuple[tuple[int, int | None], ...] | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """So that `inputs, targets = batch` works as with any PyTorch loader."""
        return iter((self.inputs, self.targets))

    @property
    def count(self) -> int:
        """Targets that are learned from: what the loss is divided by."""
        return int((self.targets != IGNORE).sum())

    def to(self: B, device: torch.device) -> B:
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class PairBatch(Batch):
    """P preference pairs in one row.

    answers (1, T): the answer that each target belongs to, chosen ones 0 to P - 1, then the rejected ones; IGNORE in a
    prompt. keys (P,): the pairs' numbers among all, by which their reference log-probabilities are found.
    """

    answers: Tensor = field(kw_only=True)
    keys: Tensor = field(kw_only=True)

    @property
    def count(self) -> int:
        """Pairs: what the loss is divided by."""
        return len(self.keys)


Example = tuple[list[int], list[bool]]  # ids, and for each whether it is to be learned
Pair = tuple[int, tuple[Example, Example]]  # a number among all pairs, then the chosen and the rejected example


def stack_windows(windows: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    """A batch of equally long (inputs, targets) windows."""
    inputs, targets = zip(*windows, strict=True)
    return Batch(torch.stack(inputs), torch.stack(targets))


def pack_examples(examples: Sequence[Example], before: Sequence[int | None] | None = None) -> Batch:
    """A batch of examples of any lengths behind each other in one row, so that nothing is padded.

    before: for each the number of the earlier one that it goes on from. What is learned is told by the mask, never by
    id, so that a true end-of-text is learned.
    """
    inputs = [id_ for ids, _ in examples for id_ in ids[:-1]]
    targets = [
        id_ if counts else IGNORE for ids, learned in examples for id_, counts in zip(ids[1:], learned[1:], strict=True)
    ]
    segments = zip((len(ids) - 1 for ids, _ in examples), before or [None] * len(examples), strict=True)
    return Batch(torch.tensor([inputs]), torch.tensor([targets]), tuple(segments))


def pack_pairs(pairs: Sequence[Pair]) -> PairBatch:
    """A batch of preference pairs: each prompt once, then its two answers, both going on from it.

    The last token of a prompt stands before each answer instead, since it has two different tokens to predict.
    """
    parts: list[tuple[Example, int | None, int]] = []  # an example, the one that it goes on from, its answer's number
    for i, (key, (chosen, rejected)) in enumerate(pairs):
        prompt, *answers = _share_prompt(key, chosen, rejected)
        before = None
        if len(prompt[0]) > 1:
            before = len(parts)
            parts.append((prompt, None, IGNORE))
        parts += [(answers[0], before, i), (answers[1], before, len(pairs) + i)]
    batch = pack_examples([example for example, _, _ in parts], [before for _, before, _ in parts])
    numbers = [answer for (ids, _), _, answer in parts for _ in ids[1:]]
    keys = torch.tensor([key for key, _ in pairs])
    return PairBatch(batch.inputs, batch.targets, batch.packing, answers=torch.tensor([numbers]), keys=keys)


def _share_prompt(key: int, chosen: Example, rejected: Example) -> list[Example]:
    """The prompt, and the two answers behind its last token. Raises ValueError where the prompts differ."""
    last = chosen[1].index(True) - 1
    if rejected[1].index(True) - 1 != last or chosen[0][: last + 1] != rejected[0][: last + 1]:
        raise ValueError(f"pair {key + 1}: the chosen and the rejected answer follow different prompts")
    prompt = chosen[0][: last + 1], chosen[1][: last + 1]
    return [prompt, *((ids[last:], learned[last:]) for ids, learned in (chosen, rejected))]


def truncate(example: Example, context_length: int) -> Example:
    """At most context_length + 1 ids, one more than the model reads: what comes before the last response goes first.

    Only a response that alone is too long loses its end.
    """
    ids, learned = example
    excess = len(ids) - (context_length + 1)
    if excess <= 0:
        return example
    last_response = next(i for i in range(len(ids) - 1, 0, -1) if learned[i] and not learned[i - 1])
    cut = min(excess, last_response - 1)  # one token stays to predict the first one learned
    return ids[cut : cut + context_length + 1], learned[cut : cut + context_length + 1]


def in_batches(examples: Sequence[Any], collate: Callable, batch_size: int) -> list[Any]:
    """All examples as batches, in order: what is evaluated on."""
    return [collate(examples[start : start + batch_size]) for start in range(0, len(examples), batch_size)]


class Dataset(Protocol):
    """Examples, and the keys of an epoch in the order in which it takes them, a function of (seed, epoch)."""

    def __getitem__(self, key: Any) -> Any: ...
    def __len__(self) -> int: ...
    def order(self, epoch: int) -> Sequence[Any]: ...
    def content_hash(self) -> str:
        """Equal for equal examples: what a resumed run must find again."""


class Shuffled:
    """A list of examples (plain values), shuffled anew for each epoch."""

    def __init__(self, examples: Sequence[Any], seed: int) -> None:
        self.examples, self.seed = examples, seed

    def __getitem__(self, key: Any) -> Any:
        return self.examples[key]

    def __len__(self) -> int:
        return len(self.examples)

    def order(self, epoch: int) -> Sequence[Any]:
        """All keys, in an order that depends on nothing but the seed and the epoch."""
        return shuffled(len(self), self.seed, epoch)

    def content_hash(self) -> str:
        return content_hash(self.examples)


def content_hash(examples: Sequence[Any]) -> str:
    """SHA-256 of examples (plain values), in their order."""
    return hashlib.sha256(repr(examples).encode("utf-8")).hexdigest()


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The numbers below `count` in an order that depends on nothing but (seed, epoch)."""
    return torch.randperm(count, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)).tolist()


class ChatsOfTurns(Shuffled):
    """Examples joined into chats of `turns` one after another, grouped anew for each epoch.

    In a chat the model reads the earlier turns as well, at positions that lone examples never reach. One that has seen
    only lone examples is thrown off by both. A chat longer than the context loses its oldest examples, as in chat.py.
    """

    def __init__(self, examples: Sequence[Example], seed: int, *, turns: int, context_length: int) -> None:
        super().__init__(examples, seed)
        self.turns, self.context_length = turns, context_length

    def __getitem__(self, key: Any) -> Example:
        ids: list[int] = []
        learned: list[bool] = []
        for i in reversed(key):
            more_ids, more_learned = self.examples[i]
            if ids and len(ids) + len(more_ids) > self.context_length + 1:
                break
            ids, learned = more_ids + ids, more_learned + learned
        return ids, learned

    def __len__(self) -> int:
        return -(-len(self.examples) // self.turns)

    def order(self, epoch: int) -> Sequence[Any]:
        """For each chat the keys of its examples."""
        keys = shuffled(len(self.examples), self.seed, epoch)
        return [keys[start : start + self.turns] for start in range(0, len(keys), self.turns)]


class StepLoader(DataLoader):
    """A PyTorch DataLoader that also gives the batches of any optimizer step, without reading those before it.

    Iterating it gives the micro-batches of one epoch after another; `at(step)` gives those of one step, a pure
    function of (seed, step), so that a resumed run needs nothing but the number of its step.
    """

    def __init__(self, dataset: Dataset, collate: Callable, batch_size: int, grad_accum: int = 1) -> None:
        super().__init__(
            dataset,  # type: ignore[arg-type]
            batch_size=batch_size,
            sampler=_EpochSampler(dataset),
            collate_fn=collate,
        )
        self.grad_accum = grad_accum
        self._order: tuple[int, Sequence[int]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch; the last may be smaller."""
        return -(-len(self.dataset) // (self.batch_size * self.grad_accum))  # type: ignore[arg-type, operator]

    def step_batches(self, step: int) -> list[Any]:
        """The micro-batches of an optimizer step, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, self.dataset.order(epoch)  # type: ignore[attr-defined]
        size: int = self.batch_size  # type: ignore[assignment]
        keys = self._order[1][within * size * self.grad_accum :][: size * self.grad_accum]
        return [
            self.collate_fn([self.dataset[key] for key in keys[start : start + size]])
            for start in range(0, len(keys), size)
        ]

    def first_steps(self, steps: int) -> list[Any]:
        """The micro-batches of the first steps of epoch 0, at most one epoch: a fixed sample to evaluate on."""
        return [batch for step in range(min(steps, self.steps_per_epoch)) for batch in self.step_batches(step)]


class _EpochSampler:
    """The keys of epoch 0 the first time it is iterated, then of epoch 1, and so on."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.epoch = dataset, 0

    def __iter__(self) -> Iterator[int]:
        keys = self.dataset.order(self.epoch)
        self.epoch += 1
        return iter(keys)

    def __len__(self) -> int:
        return len(self.dataset)
