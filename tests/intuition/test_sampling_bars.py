"""The distributions match those that the model samples from."""

from itertools import product

import pytest
import torch

from src.intuition.sampling_bars import SCORES, distribution
from src.model.decoding.sampling import SamplingSettings, candidates


@pytest.mark.parametrize("temperature", [0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scores", [[*SCORES.values()], [0.3, -1.1, 2.5, 0.31, 0.9, -0.4, 1.7, 1.2], [0.0, -40.0]])
def test_temperature_top_k_and_top_p_match_the_model(scores: list[float], temperature: float) -> None:
    for top_k, top_p in product([None, 1, 3, 100], [None, 0.01, 0.5, 0.8, 0.9, 1]):
        settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p)
        ids, probs = candidates(torch.tensor(scores), torch.tensor([], dtype=torch.int64), settings)
        expected = torch.zeros(len(scores)).index_copy(0, ids, probs)
        ours = distribution(scores, temperature, top_k, top_p)
        assert ours == pytest.approx(expected.tolist(), abs=1e-6)
        assert [share > 0 for share in ours] == (expected > 0).tolist()


def test_token_starting_exactly_at_top_p_is_ruled_out() -> None:
    ids, _ = candidates(torch.zeros(4), torch.tensor([], dtype=torch.int64), SamplingSettings(top_p=0.5))
    assert [*map(bool, distribution([0.0] * 4, top_p=0.5))] == [True] * len(ids) + [False] * 2
