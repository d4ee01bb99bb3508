"""A text is cut into reproducible windows, also if it is in several shards."""

import numpy as np
import pytest
import torch

from src.data.windows import TextWindows


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
