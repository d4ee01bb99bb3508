"""Continuous batching: sequences are decoded together, and when one finishes, the next one takes its slot."""

from collections import deque
from collections.abc import Iterator

from src.model.decoding.cached_model import CachedBatch
from src.model.decoding.output_head import OutputHead
from src.model.decoding.sequence import Sequence
from src.model.gpt import GPTModel

ActiveSequences = list[tuple[int, Sequence]]  # (index, sequence) by slot, which is the sequence's row in the cache


def decode_batch(
    model: GPTModel, head: OutputHead, sequences: list[Sequence], batch_size: int
) -> Iterator[tuple[int, list[int]]]:
    """Generate sequences without draft tokens, up to `batch_size` at a time.

    Yields (index of the sequence, new ids) for each sequence and decode step. The caller may finish a sequence. All
    have the same sampling options. Active sequences always occupy the first slots.
    """
    if not sequences:
        return
    capacity = max(sequence.capacity for sequence in sequences)
    batch = CachedBatch(model, head, min(batch_size, len(sequences)), capacity)
    top_logits_needed = sequences[0].sampling.top_logits_needed
    waiting, active = deque(enumerate(sequences)), ActiveSequences()
    while waiting or active:
        while waiting and len(active) < batch.n_rows:
            batch.clear(len(active))
            active.append(waiting.popleft())
        last_ids = [_prefill_all_but_last(batch, slot, sequence) for slot, (_, sequence) in enumerate(active)]
        logits = batch.decode(last_ids, top_logits_needed)
        for slot, (index, sequence) in enumerate(active):
            yield index, sequence.accept(sequence.sample(logits[slot : slot + 1]))
        for slot in reversed(range(len(active))):
            if active[slot][1].finished:
                _release_row(slot, active, batch)


def _prefill_all_but_last(batch: CachedBatch, slot: int, sequence: Sequence) -> int:
    """Prefill the pending tokens of a sequence except for the last one, which is returned for the decode step."""
    if sequence.slide_if_full():
        batch.clear(slot)
    *new, last = sequence.pending(batch.cached_tokens(slot))
    if new:
        batch.prefill(slot, new)
    return last


def _release_row(slot: int, active: ActiveSequences, batch: CachedBatch) -> None:
    """Free a row by moving the last active sequence into it, so that active rows stay contiguous."""
    last = active.pop()
    if slot < len(active):
        active[slot] = last
        batch.move(len(active), slot)
