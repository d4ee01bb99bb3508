"""From examples to batches: truncation, packing, and the micro-batches of each step. All of it is on the CPU.

The training loop moves batches to its device. B rows, T tokens per row, P pairs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from src.data.datasets import EpochDataset
from src.data.prompts import Example
from src.distributed.processes import Processes

BatchT = TypeVar("BatchT", bound="Batch")

IGNORE = -100  # target of an unsupervised position; PyTorch's cross-entropy skips this value


@dataclass(frozen=True)
class Batch:
    """Inputs (B, T) and targets (B, T), both int64. A target is the token after its input, or IGNORE.

    packing: None if every row is one sequence. If several are packed into one row: per segment, its length, and the
    index of the segment it continues (None if it starts a sequence).
    is_dummy: True for the batch of a process that has no examples left while others have. It takes part in their
    exchanges with a copy of another batch, whose loss is multiplied by 0.
    """

    inputs: Tensor
    targets: Tensor
    packing: tuple[tuple[int, int | None], ...] | None = None
    is_dummy: bool = field(default=False, kw_only=True)

    def __iter__(self) -> Iterator[Tensor]:
        """So that `inputs, targets = batch` works as with any PyTorch DataLoader."""
        return iter((self.inputs, self.targets))

    @property
    def n_supervised(self) -> int:
        """Number of supervised positions."""
        return int((self.targets != IGNORE).sum())

    @property
    def loss_denominator(self) -> int:
        """What turns the summed loss into a mean. A step divides by the sum over its batches; a dummy adds 0."""
        return 0 if self.is_dummy else self.n_supervised

    def to(self: BatchT, device: torch.device) -> BatchT:
        """The same batch with its tensors on a device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class PairBatch(Batch):
    """P preference pairs packed into one row.

    answers (1, T): the answer that each target belongs to, 0 to P - 1 for the chosen ones, P to 2P - 1 for the rejected
    ones, IGNORE in a prompt. keys (P,): the index of each pair in the data, to look up its reference log-probabilities.
    """

    answers: Tensor = field(kw_only=True)
    keys: Tensor = field(kw_only=True)

    @property
    def n_pairs(self) -> int:
        """Number of pairs."""
        return len(self.keys)

    @property
    def loss_denominator(self) -> int:
        """The number of pairs, or 0 for a dummy: the loss is a mean over pairs."""
        return 0 if self.is_dummy else self.n_pairs


Pair: TypeAlias = tuple[int, tuple[Example, Example]]  # key, then the chosen and the rejected example


def stack_windows(windows: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    """A batch of (inputs, targets) windows of one length."""
    inputs, targets = zip(*windows, strict=True)
    return Batch(torch.stack(inputs), torch.stack(targets))


def pack_examples(examples: Sequence[Example], parents: Sequence[int | None] | None = None) -> Batch:
    """Pack examples of any lengths into one row, without padding.

    parents: for each example, the index of the earlier one that it continues. The mask decides which targets are
    supervised, never a token id, so a real end-of-text is learned.
    For example, ids 1 2 3 0 with the response 3 0, and ids 4 5 0 with the response 5 0 (-: IGNORE):

        inputs     1  2  3 | 4  5
        targets    -  3  0 | 5  0
        packing    (3, None), (2, None)
    """
    inputs = [id_ for ids, _ in examples for id_ in ids[:-1]]
    targets = [
        id_ if supervised else IGNORE
        for ids, mask in examples
        for id_, supervised in zip(ids[1:], mask[1:], strict=True)
    ]
    packing = zip((len(ids) - 1 for ids, _ in examples), parents or [None] * len(examples), strict=True)
    return Batch(torch.tensor([inputs]), torch.tensor([targets]), tuple(packing))


class _Segment(NamedTuple):
    """A prompt or an answer in a packed row. parent: the index of the segment that it continues."""

    example: Example
    parent: int | None
    answer: int  # its number, as in PairBatch.answers


def pack_pairs(pairs: Sequence[Pair]) -> PairBatch:
    """A batch of preference pairs: each prompt once, then its two answers, both continuing it.

    The prompt's last token is repeated in front of each answer, because it must predict two different tokens.
    For example, the prompt 1 2 3 with the chosen answer 4 0 and the rejected answer 5 0 (-: IGNORE):

        inputs     1  2 | 3  4 | 3  5
        targets    -  - | 4  0 | 5  0
        packing    (2, None), (2, 0), (2, 0)
        answers    -  - | 0  0 | 1  1
    """
    segments: list[_Segment] = []
    for i, (key, (chosen, rejected)) in enumerate(pairs):
        prompt, *answers = _split_prompt(key, chosen, rejected)
        parent = None
        if len(prompt.ids) > 1:
            parent = len(segments)
            segments.append(_Segment(prompt, None, IGNORE))
        segments += [_Segment(answers[0], parent, i), _Segment(answers[1], parent, len(pairs) + i)]
    batch = pack_examples([segment.example for segment in segments], [segment.parent for segment in segments])
    numbers = [segment.answer for segment in segments for _ in segment.example.ids[1:]]
    keys = torch.tensor([key for key, _ in pairs])
    return PairBatch(batch.inputs, batch.targets, batch.packing, answers=torch.tensor([numbers]), keys=keys)


def _split_prompt(key: int, chosen: Example, rejected: Example) -> list[Example]:
    """The shared prompt, then both answers, each after the prompt's last token. Raises ValueError if prompts differ."""
    length = chosen.mask.index(True)  # of the prompt
    if rejected.mask.index(True) != length or chosen.ids[:length] != rejected.ids[:length]:
        raise ValueError(f"pair {key + 1}: the chosen and the rejected answer follow different prompts")
    prompt = Example(chosen.ids[:length], chosen.mask[:length])
    answers = [Example(pair.ids[length - 1 :], pair.mask[length - 1 :]) for pair in (chosen, rejected)]
    return [prompt, *answers]


def truncate(example: Example, context_length: int) -> Example:
    """Cut to context_length + 1 ids, one more than the model's input, from the start of the example.

    The last response stays whole, unless it is too long on its own: then its end is cut.
    """
    ids, mask = example
    excess = len(ids) - (context_length + 1)
    if excess <= 0:
        return example
    last_response = next(i for i in range(len(ids) - 1, 0, -1) if mask[i] and not mask[i - 1])
    cut = min(excess, last_response - 1)  # one token stays to predict the response's first
    return Example(ids[cut : cut + context_length + 1], mask[cut : cut + context_length + 1])


def in_batches(examples: Sequence[Any], collate: Callable, batch_size: int) -> list[Any]:
    """All examples as batches, in order; the last batch may be smaller."""
    return [collate(examples[start : start + batch_size]) for start in range(0, len(examples), batch_size)]


def epoch_loader(dataset: EpochDataset, collate: Callable, batch_size: int) -> DataLoader:
    """A PyTorch DataLoader that yields epoch 0 when first iterated, then epoch 1, and so on."""
    return DataLoader(dataset, batch_size, sampler=_EpochSampler(dataset), collate_fn=collate)


class _EpochSampler(Sampler[Any]):
    """Yields the keys of epoch 0 when first iterated, then those of epoch 1, and so on."""

    def __init__(self, dataset: EpochDataset) -> None:
        self.dataset, self.epoch = dataset, 0

    def __iter__(self) -> Iterator[Any]:
        keys = self.dataset.order(self.epoch)
        self.epoch += 1
        return iter(keys)

    def __len__(self) -> int:
        return len(self.dataset)


class StepLoader:
    """Groups the batches of a DataLoader into optimizer steps of `grad_accum` micro-batches.

    It uses the loader's dataset, batch size and collate function, and never iterates it. The micro-batches of a step
    are a pure function of (seed, step), so a resumed run needs only its step number.
    """

    def __init__(self, loader: DataLoader, grad_accum: int = 1) -> None:
        """Raises ValueError if the loader's dataset does not define the order of each epoch."""
        if not isinstance(loader.dataset, EpochDataset) or loader.batch_size is None:
            raise ValueError("the loader does not define the order of each epoch; make it with create_dataloader")
        self.dataset, self.batch_size, self.grad_accum = loader.dataset, loader.batch_size, grad_accum
        self.processes = Processes()  # src/training/parallel.py replaces it under torchrun
        self._collate = loader.collate_fn
        self._order: tuple[int, Sequence[Any]] = (-1, [])  # (epoch, its keys)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch; the last one may be smaller."""
        return -(-len(self.dataset) // (self.batch_size * self.grad_accum))

    def step_batches(self, step: int) -> list[Any]:
        """The micro-batches of an optimizer step, counted from 0 over all epochs."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, self.dataset.order(epoch)
        examples_per_step = self.batch_size * self.grad_accum
        keys = self._order[1][step_in_epoch * examples_per_step :][:examples_per_step]
        return [self._part(keys[start : start + self.batch_size]) for start in range(0, len(keys), self.batch_size)]

    def first_batches(self, count: int) -> list[Any]:
        """The first batches of epoch 0, up to `count`: fixed batches to evaluate on."""
        keys = self.dataset.order(0)[: count * self.batch_size]
        return in_batches([self.dataset[key] for key in keys], self._collate, self.batch_size)

    def _part(self, keys: Sequence[Any]) -> Any:
        """This process's part of a micro-batch. If there are fewer examples than processes, some get a dummy."""
        part = self.processes.share(keys)
        batch = self._collate([self.dataset[key] for key in part or keys[:1]])
        return batch if part else replace(batch, is_dummy=True)
