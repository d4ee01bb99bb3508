"""Batches: their contents, how a step follows from (seed, step), and how chats are truncated."""

import pytest
import torch
from torch.utils.data import DataLoader

from src.data.batching import IGNORE, StepLoader, epoch_loader, pack_examples, pack_pairs, stack_windows, truncate
from src.data.datasets import ExampleDataset, content_hash
from src.data.prompts import Example


def example(prompt: list[int], response: list[int]) -> Example:
    return Example(prompt + response, [False] * len(prompt) + [True] * len(response))


def test_packed_examples_shift_targets_and_mask_prompts() -> None:
    batch = pack_examples([example([1, 2], [3, 0]), example([4], [5, 6, 7, 0])])
    assert batch.inputs.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch.targets.tolist() == [[IGNORE, 3, 0, 5, 6, 7, 0]]
    assert batch.packing == ((3, None), (4, None))
    assert batch.loss_denominator == 6


def test_a_batch_unpacks_to_inputs_and_targets() -> None:
    inputs, targets = stack_windows([(torch.tensor([1, 2]), torch.tensor([2, 3]))])
    assert (inputs.tolist(), targets.tolist()) == ([[1, 2]], [[2, 3]])


def test_a_pair_batch_packs_each_prompt_once() -> None:
    long = example([1, 2, 3], [4, 5, 9]), example([1, 2, 3], [6, 9])
    short = example([4], [5, 9]), example([4], [6, 9])  # a prompt of one token: nothing to share
    batch = pack_pairs([(7, long), (2, short)])
    assert batch.inputs.tolist() == [[1, 2, 3, 4, 5, 3, 6, 4, 5, 4, 6]]
    assert batch.targets.tolist() == [[IGNORE, IGNORE, 4, 5, 9, 6, 9, 5, 9, 6, 9]]
    assert batch.packing == ((2, None), (3, 0), (2, 0), (2, None), (2, None))
    assert batch.answers.tolist() == [[IGNORE, IGNORE, 0, 0, 0, 2, 2, 1, 1, 3, 3]]
    assert batch.keys.tolist() == [7, 2]
    assert batch.loss_denominator == 2


@pytest.mark.parametrize("other", [example([1, 3], [4]), example([2], [4]), example([1, 2, 3], [4])])
def test_a_pair_with_two_prompts_is_refused(other) -> None:
    with pytest.raises(ValueError, match="pair 6: the chosen and the rejected answer follow different prompts"):
        pack_pairs([(5, (example([1, 2], [3]), other))])


def test_to_moves_every_tensor_of_a_batch() -> None:
    batch = pack_pairs([(0, (example([1, 2], [3]), example([1, 2], [4])))]).to(torch.device("meta"))
    assert {t.device.type for t in (batch.inputs, batch.targets, batch.answers, batch.keys)} == {"meta"}
    assert batch.packing == ((1, None), (1, 0), (1, 0))


@pytest.mark.parametrize(
    ("prompt", "response", "length", "expected"),
    [
        (5, 3, 8, [1, 2, 3, 4, 5, 91, 92, 93]),
        (5, 3, 6, [2, 3, 4, 5, 91, 92, 93]),
        (5, 3, 3, [5, 91, 92, 93]),
        (5, 3, 2, [5, 91, 92]),  # the response alone is too long: it loses its end
        (1, 9, 4, [1, 91, 92, 93, 94]),
        (5, 1, 3, [3, 4, 5, 91]),
    ],
)
def test_truncation_cuts_the_start_of_the_prompt_first(prompt: int, response: int, length: int, expected) -> None:
    ids, mask = truncate(example(list(range(1, prompt + 1)), list(range(91, 91 + response))), length)
    assert ids == expected
    assert mask == [i > 90 for i in expected]
    assert pack_examples([Example(ids, mask)]).inputs.shape[1] <= length


def test_truncating_a_chat_keeps_its_last_response() -> None:
    first, last = example([1, 2, 3], [91, 92]), example([4, 5], [93, 94])
    ids, mask = truncate(Example(first.ids + last.ids, first.mask + last.mask), 4)
    assert ids == [92, 4, 5, 93, 94]
    assert mask == [True, False, False, True, True]


def data(count: int = 10) -> list[Example]:
    return [example([i], [i + 50, i + 50]) for i in range(count)]


def loader(batch_size: int, grad_accum: int, seed: int = 0, count: int = 10) -> StepLoader:
    return StepLoader(epoch_loader(ExampleDataset(data(count), seed), pack_examples, batch_size), grad_accum)


def numbers(batches) -> list[int]:
    """The numbers of the examples in the batches; an example packs to [number, 50 + number]."""
    return [i for batch in batches for i in batch.inputs[0, ::2].tolist()]


def test_each_epoch_has_every_example_once_in_a_new_order() -> None:
    steps = loader(2, 2)
    assert steps.steps_per_epoch == 3
    epochs = [[i for step in range(3 * e, 3 * e + 3) for i in numbers(steps.step_batches(step))] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_step_batches_depend_only_on_seed_and_step() -> None:
    assert numbers(loader(2, 2).step_batches(7)) == numbers(loader(2, 2).step_batches(7))
    forward = loader(2, 2)
    for step in range(7):
        forward.step_batches(step)
    assert numbers(forward.step_batches(7)) == numbers(loader(2, 2).step_batches(7))
    assert numbers(loader(2, 2, seed=1).step_batches(7)) != numbers(loader(2, 2).step_batches(7))


def test_accumulation_is_one_batch_by_default() -> None:
    assert StepLoader(epoch_loader(ExampleDataset(data(), 0), pack_examples, 4)).steps_per_epoch == 3


def test_micro_batches_split_one_large_batch() -> None:
    assert [len(batch.packing) for batch in loader(1, 8).step_batches(0)] == [1] * 8
    assert numbers(loader(1, 8).step_batches(0)) == numbers(loader(8, 1).step_batches(0))


def test_epoch_loader_is_a_dataloader_of_one_epoch_after_another() -> None:
    batches, steps = epoch_loader(ExampleDataset(data(), 0), pack_examples, 4), loader(4, 1)
    assert isinstance(batches, DataLoader)
    assert numbers(iter(batches)) == [i for step in range(3) for i in numbers(steps.step_batches(step))]
    assert numbers(iter(batches)) == [i for step in range(3, 6) for i in numbers(steps.step_batches(step))]
    assert numbers(iter(batches)) == [i for step in range(6, 9) for i in numbers(steps.step_batches(step))]


def test_iterating_the_dataloader_does_not_change_the_steps() -> None:
    batches = epoch_loader(ExampleDataset(data(), 0), pack_examples, 4)
    steps = StepLoader(batches)
    expected = numbers(steps.step_batches(4))
    assert len(list(batches)) == 3
    assert numbers(steps.step_batches(4)) == expected


def test_step_loader_refuses_a_loader_without_an_epoch_order() -> None:
    for other in (DataLoader(data(), 4), DataLoader(ExampleDataset(data(), 0), batch_size=None)):
        with pytest.raises(ValueError, match="does not define the order of each epoch; make it with create_dataloader"):
            StepLoader(other)


@pytest.mark.parametrize("grad_accum", [1, 3])
def test_first_batches_are_the_start_of_the_first_epoch(grad_accum: int) -> None:
    first = loader(4, grad_accum).first_batches(2)
    assert len(first) == 2
    assert numbers(first) == [i for step in range(2) for i in numbers(loader(4, 1).step_batches(step))]
    assert len(numbers(loader(4, grad_accum).first_batches(99))) == 10


def test_content_hash_distinguishes_examples() -> None:
    assert loader(2, 1).dataset.content_hash() == loader(4, 2).dataset.content_hash()
    assert loader(2, 1).dataset.content_hash() != loader(2, 1, count=9).dataset.content_hash()


def test_content_hash_is_that_of_plain_values() -> None:
    """Runs that earlier versions saved hold it, and can be resumed."""
    assert content_hash([Example([1, 2], [False, True])]) == content_hash([([1, 2], [False, True])])
