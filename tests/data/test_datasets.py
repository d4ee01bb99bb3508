"""A text is cut into reproducible windows, and chats are joined in a reproducible order."""

import numpy as np
import pytest
import torch

from src.data.datasets import ExampleDataset, JoinedChats, TextWindows, shuffled
from src.data.prompts import Example

EXAMPLES = [Example([i, i, 50 + i], [False, False, True]) for i in range(7)]


def test_window_targets_are_the_inputs_one_token_later() -> None:
    windows = TextWindows(np.arange(5000, 5100, dtype=np.uint16), 8, seed=1)
    for start in windows.order(0):
        inputs, targets = windows[start]
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.tolist() == list(range(5000 + start, 5008 + start))
        assert torch.equal(targets, inputs + 1)
        assert targets.shape == (8,)


@pytest.mark.parametrize("n_tokens", [9, 10, 16, 17, 18, 24, 25, 100])
def test_windows_cover_the_text_from_the_offset_on(n_tokens: int) -> None:
    windows = TextWindows(np.arange(n_tokens), 8, seed=3)
    assert len(windows) == (n_tokens - 1) // 8
    for epoch in range(40):
        starts = windows.order(epoch)
        assert len(set(starts)) == len(starts) == len(windows)
        seen = {token for start in starts for token in windows[start][1].tolist()}
        offset = min(starts)
        assert 0 <= offset < 8
        assert seen == set(range(offset + 1, max(seen) + 1))
        assert max(seen) >= min(n_tokens - 1, 8 * len(windows))


def test_every_offset_occurs_and_epochs_differ_in_order() -> None:
    windows = TextWindows(np.arange(1000), 8, seed=0)
    epochs = [windows.order(epoch) for epoch in range(100)]
    assert {min(epoch) for epoch in epochs} == set(range(8))
    orders = {tuple(np.argsort(epoch).tolist()) for epoch in epochs}
    assert len(orders) == 100
    assert tuple(range(len(windows))) not in orders


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    ids = np.arange(1000)
    forward = TextWindows(ids, 16, seed=5)
    backward = TextWindows(ids, 16, seed=5)
    in_order = [forward.order(epoch) for epoch in range(5)]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert [backward.order(epoch) for epoch in reversed(range(5))] == in_order[::-1]
    assert torch.equal(state, torch.get_rng_state())
    assert TextWindows(ids, 16, seed=6).order(0) != in_order[0]
    assert TextWindows(ids, 16, seed=4).order(1) != in_order[0]  # not a function of seed + epoch


def test_a_window_is_a_copy_of_the_tokens() -> None:
    ids = np.arange(100)
    inputs, _ = TextWindows(ids, 8, seed=0)[3]
    ids[:] = 0
    assert inputs.tolist() == list(range(3, 11))


@pytest.mark.parametrize("start", [-1, 92])
def test_a_window_past_the_end_is_refused(start: int) -> None:
    windows = TextWindows(np.arange(100), 8, seed=0)
    assert windows[91][1].tolist() == list(range(92, 100))
    with pytest.raises(IndexError, match=f"no window starts at token {start} of 100"):
        windows[start]


def test_the_content_hash_depends_only_on_the_tokens() -> None:
    ids = np.arange(100, dtype=np.uint16)
    fingerprint = TextWindows(ids, 8, seed=0).content_hash()
    assert TextWindows(ids.copy(), 8, seed=0).content_hash() == fingerprint
    assert TextWindows(ids[:-1], 8, seed=0).content_hash() != fingerprint


def test_a_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--val-fraction.*has 8 tokens; one window needs 9: lower --context-length"):
        TextWindows(np.arange(8), 8, seed=0)
    with pytest.raises(ValueError, match="--context-length is 0"):
        TextWindows(np.arange(8), 0, seed=0)


def test_the_order_stays_the_same_in_later_versions() -> None:
    # A run that an earlier version began is resumed with the same batches.
    assert shuffled(8, seed=1337, epoch=0) == [2, 6, 4, 1, 7, 3, 0, 5]
    assert shuffled(8, seed=1337, epoch=3) == [0, 4, 7, 2, 5, 3, 6, 1]
    assert shuffled(4, seed=2**63 - 1, epoch=1) == [2, 1, 3, 0]


def joined(turns: int, context_length: int = 100) -> JoinedChats:
    return JoinedChats(EXAMPLES, 0, turns=turns, context_length=context_length)


def test_joined_chats_have_every_example_once_per_epoch() -> None:
    chats = joined(3)
    assert len(chats) == 3
    for epoch in range(2):
        keys = chats.order(epoch)
        assert [(opening, len(chat)) for opening, chat in keys] == [(None, 3), (None, 3), (None, 1)]
        assert sorted(i for _, chat in keys for i in chat) == list(range(7))
    ids, mask = chats[None, [4, 0, 6]]
    assert ids == [4, 4, 54, 0, 0, 50, 6, 6, 56]
    assert mask == [False, False, True] * 3


def test_a_chat_longer_than_the_context_drops_oldest_examples() -> None:
    assert joined(3, context_length=7)[None, [4, 0, 6]][0] == [0, 0, 50, 6, 6, 56]
    assert joined(3, context_length=8)[None, [4, 0, 6]][0] == [4, 4, 54, 0, 0, 50, 6, 6, 56]


def test_chats_of_one_example_are_the_examples() -> None:
    chats, alone = joined(1), ExampleDataset(EXAMPLES, 0)
    assert [chats[key] for key in chats.order(4)] == [alone[key] for key in alone.order(4)]


def with_openings(context_length: int, share: float = 0.5) -> JoinedChats:
    chats = joined(3, context_length)
    chats.add_openings([[90], [91, 91]], share)
    return chats


def test_an_opening_is_unsupervised_and_leaves_less_room_for_old_examples() -> None:
    ids, mask = with_openings(100)[1, [4, 0]]
    assert ids == [91, 91, 4, 4, 54, 0, 0, 50] and mask == [False, False, *[False, False, True] * 2]
    assert with_openings(7)[1, [4, 0]][0] == [91, 91, 4, 4, 54, 0, 0, 50]
    assert with_openings(6)[1, [4, 0]][0] == [91, 91, 0, 0, 50]
    assert with_openings(3)[1, [4, 0]][0] == [0, 0, 50]  # the opening does not fit


def test_the_share_of_openings_is_drawn_by_seed_and_epoch() -> None:
    chats = with_openings(100)
    assert chats.order(3) == with_openings(100).order(3)
    drawn = [opening for epoch in range(500) for opening, _ in chats.order(epoch)]
    assert {*drawn} == {None, 0, 1} and 0.45 < sum(opening is not None for opening in drawn) / len(drawn) < 0.55
    assert all(opening is None for opening, _ in with_openings(100, share=0.0).order(0))
    assert [chat for _, chat in chats.order(0)] == [chat for _, chat in joined(3).order(0)]
    assert chats.content_hash() != joined(3).content_hash() == with_openings(100, share=0.0).content_hash()
