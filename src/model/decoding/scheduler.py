"""Continuous batching: sequences are decoded together, and when one finishes, a waiting one takes its row."""

from collections import deque
from collections.abc import Iterator

from src.model.decoding.cached_model import CachedBatch
from src.model.decoding.output_head import OutputHead
from src.model.decoding.sequence import Sequence
from src.model.gpt import GPTModel

ActiveSequences = list[tuple[int, Sequence]]  # (index, sequence) of each row of the cache, from the first row on


def decode_batch(
    model: GPTModel, head: OutputHead, sequences: list[Sequence], batch_size: int
) -> Iterator[tuple[int, list[int]]]:
    """Generate sequences without draft tokens, up to `batch_size` at a time.

    Yields (index of the sequence, new ids) for each sequence and decode step. The caller may finish a sequence. All
    have the same sampling options.
    """
    if not sequences:
        return
    capacity = max(sequence.capacity for sequence in sequences)
    batch = CachedBatch(model, head, min(batch_size, len(sequences)), capacity)
    top_logits_needed = sequences[0].sampling.top_logits_needed
    waiting = deque(enumerate(sequences))
    active: ActiveSequences = []
    while waiting or active:
        while waiting and len(active) < batch.n_rows:
            batch.clear(len(active))
            active.append(waiting.popleft())
        last_ids = [_prefill_all_but_last(batch, row, sequence) for row, (_, sequence) in enumerate(active)]
        logits = batch.decode_one_token(last_ids, top_logits_needed)
        for row, (index, sequence) in enumerate(active):
            yield index, sequence.accept(sequence.sample(logits[row : row + 1], draft=[]))
        for row in reversed(range(len(active))):
            if active[row][1].finished:
                _release_row(row, active, batch)


def _prefill_all_but_last(batch: CachedBatch, row: int, sequence: Sequence) -> int:
    """Prefill the tokens that are not cached, except for the last one, which is returned for the decode step."""
    if sequence.slide_if_full():
        batch.clear(row)
    *new_ids, last_id = sequence.pending(batch.cached_tokens(row))
    if new_ids:
        batch.prefill(row, new_ids)
    return last_id


def _release_row(row: int, active: ActiveSequences, batch: CachedBatch) -> None:
    """Free a row by moving the last active sequence into it, so that active rows stay contiguous."""
    last = active.pop()
    if row < len(active):
        active[row] = last
        batch.move(len(active), row)
