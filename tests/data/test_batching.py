"""Batches: what is in them, that they are pure functions of (seed, step), and how chats are joined and cut."""

import pytest
import torch
from torch.utils.data import DataLoader

from src.data.batching import (
    IGNORE,
    Joined,
    Shuffled,
    StepLoader,
    pad_examples,
    pad_pairs,
    stack_windows,
    truncate,
)


def example(prompt: list[int], response: list[int]) -> tuple[list[int], list[bool]]:
    return prompt + response, [False] * len(prompt) + [True] * len(response)


def test_targets_are_the_inputs_one_token_later_and_prompts_and_padding_are_left_out() -> None:
    batch = pad_examples([example([1, 2], [3, 0]), example([4], [5, 6, 7, 0])])
    assert batch.inputs.tolist() == [[1, 2, 3, 0], [4, 5, 6, 7]]
    assert batch.targets.tolist() == [[IGNORE, 3, 0, IGNORE], [5, 6, 7, 0]]
    assert batch.count == 6


def test_a_batch_unpacks_like_any_loaders() -> None:
    inputs, targets = stack_windows([(torch.tensor([1, 2]), torch.tensor([2, 3]))])
    assert (inputs.tolist(), targets.tolist()) == ([[1, 2]], [[2, 3]])


def test_a_pair_batch_holds_the_chosen_first_and_counts_pairs() -> None:
    batch = pad_pairs([(example([1], [2, 9]), example([1], [3, 9])), (example([4], [5, 9]), example([4], [6, 9]))])
    assert batch.inputs[:, 1].tolist() == [2, 5, 3, 6]
    assert batch.count == 2
    assert batch.to(torch.device("cpu")).count == 2


@pytest.mark.parametrize(
    ("prompt", "response", "length", "expected"),
    [
        (5, 3, 8, [1, 2, 3, 4, 5, 91, 92, 93]),
        (5, 3, 6, [2, 3, 4, 5, 91, 92, 93]),
        (5, 3, 3, [5, 91, 92, 93]),
        (5, 3, 2, [5, 91, 92]),  # the response alone is too long: it loses its end
        (1, 9, 4, [1, 91, 92, 93, 94]),
    ],
)
def test_truncation_takes_the_beginning_of_the_prompt_first(prompt: int, response: int, length: int, expected) -> None:
    ids, learned = truncate(example(list(range(1, prompt + 1)), list(range(91, 91 + response))), length)
    assert ids == expected
    assert learned == [i > 90 for i in expected]
    assert pad_examples([(ids, learned)]).inputs.shape[1] <= length


def test_truncating_a_chat_keeps_its_last_response() -> None:
    first, last = example([1, 2, 3], [91, 92]), example([4, 5], [93, 94])
    ids, learned = truncate((first[0] + last[0], first[1] + last[1]), 4)
    assert ids == [92, 4, 5, 93, 94]
    assert learned == [True, False, False, True, True]


def loader(batch_size: int, grad_accum: int, seed: int = 0, count: int = 10) -> StepLoader:
    examples = [example([i], [i + 50, i + 50]) for i in range(count)]
    return StepLoader(Shuffled(examples, seed), pad_examples, batch_size, grad_accum)


def firsts(batches) -> list[int]:
    return [i for batch in batches for i in batch.inputs[:, 0].tolist()]


def test_every_example_comes_once_an_epoch_in_a_new_order() -> None:
    steps = loader(2, 2)
    assert steps.steps_per_epoch == 3
    epochs = [[i for step in range(3 * e, 3 * e + 3) for i in firsts(steps.at(step))] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_step_depends_on_the_seed_and_its_number_alone() -> None:
    assert firsts(loader(2, 2).at(7)) == firsts(loader(2, 2).at(7))
    forward = loader(2, 2)
    for step in range(7):
        forward.at(step)
    assert firsts(forward.at(7)) == firsts(loader(2, 2).at(7))
    assert firsts(loader(2, 2, seed=1).at(7)) != firsts(loader(2, 2).at(7))


def test_micro_batches_cut_the_step_that_one_large_batch_would_be() -> None:
    assert [len(batch.inputs) for batch in loader(1, 8).at(0)] == [1] * 8
    assert firsts(loader(1, 8).at(0)) == firsts(loader(8, 1).at(0))


def test_it_is_a_pytorch_dataloader_whose_epochs_are_those_of_its_steps() -> None:
    steps = loader(4, 1)
    assert isinstance(steps, DataLoader)
    assert firsts(iter(steps)) == [i for step in range(3) for i in firsts(steps.at(step))]
    assert firsts(iter(steps)) == [i for step in range(3, 6) for i in firsts(steps.at(step))]


def test_the_first_batches_are_at_most_an_epoch() -> None:
    assert firsts(loader(4, 1).first(2)) == firsts(loader(4, 1).at(0)) + firsts(loader(4, 1).at(1))
    assert len(firsts(loader(4, 1).first(99))) == 10


def test_fingerprints_tell_examples_apart() -> None:
    assert loader(2, 1).dataset.fingerprint() == loader(4, 2).dataset.fingerprint()
    assert loader(2, 1).dataset.fingerprint() != loader(2, 1, count=9).dataset.fingerprint()


def joined(turns: int, context_length: int = 100) -> Joined:
    return Joined([example([i, i], [50 + i]) for i in range(7)], 0, turns=turns, context_length=context_length)


def test_joined_chats_hold_every_example_once_an_epoch_with_its_responses_learned() -> None:
    chats = joined(3)
    assert len(chats) == 3
    for epoch in range(2):
        keys = chats.order(epoch)
        assert [len(key) for key in keys] == [3, 3, 1]
        assert sorted(i for key in keys for i in key) == list(range(7))
    ids, learned = chats[[4, 0, 6]]
    assert ids == [4, 4, 54, 0, 0, 50, 6, 6, 56]
    assert learned == [False, False, True] * 3


def test_a_chat_too_long_for_the_context_loses_its_oldest_examples_whole() -> None:
    assert joined(3, context_length=7)[[4, 0, 6]][0] == [0, 0, 50, 6, 6, 56]
    assert joined(3, context_length=8)[[4, 0, 6]][0] == [4, 4, 54, 0, 0, 50, 6, 6, 56]


def test_chats_of_one_are_the_examples_themselves() -> None:
    chats, alone = joined(1), Shuffled([example([i, i], [50 + i]) for i in range(7)], 0)
    assert [chats[key] for key in chats.order(4)] == [alone[key] for key in alone.order(4)]
