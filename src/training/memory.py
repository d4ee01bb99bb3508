"""An estimate of the memory that a training step needs."""

from src.model.config import GPTConfig
from src.training.tied_head import CHUNK_ROWS

PROCESS_BASELINE = 0.3e9  # bytes of Python and PyTorch themselves
FRAGMENTATION = 1 / 5  # of the memory held: gaps between blocks of different sizes


def memory(
    size: GPTConfig, tokens: int, *, half: bool, muon: bool = False, accumulated: bool = False
) -> dict[str, float]:
    """Peak memory of a training step in bytes, by purpose, for micro-batches of `tokens` tokens.

    The peak is either when backward has finished the head but no block yet, or when all gradients exist.
    half: activations are bf16 or fp16. accumulated: gradients of several micro-batches are added up.
    """
    parameters, body = size.parameter_count()
    head, C, ff = size.vocab_size * size.d_model, size.d_model, size.d_ff or 4 * size.d_model
    # Saved for backward per layer: x before each LayerNorm; both LayerNorm outputs, q, k, v, y, and the MLP's h.
    activations = tokens * size.n_layers * (2 * 4 * C + (6 * C + ff) * (2 if half else 4))
    logits = min(CHUNK_ROWS, tokens) * size.vocab_size * (6 if half else 4)
    backward = tokens * (3 * ff + 4 * C) * 4  # temporaries of the layer being processed
    copies = 2 * (body + head) if half else 0
    early, late = activations + copies + 4 * head + max(logits, backward), 4 * parameters
    return {
        "weights": 4 * parameters,
        "moments": 8 * parameters - (4 * body if muon else 0),
        "gradients and activations": early + late if accumulated else max(early, late),
    }


def peak(held: dict[str, float]) -> float:
    """The peak memory of the whole process in bytes."""
    return PROCESS_BASELINE + (1 + FRAGMENTATION) * sum(held.values())
