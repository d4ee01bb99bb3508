"""The arithmetic of a training run, and the traffic between its processes: closed formulas."""

from src.model.config import GPTConfig
from src.training.memory_estimate import FP32, Workload

TOKENS_PER_PARAMETER = 20  # the compute-optimal number: Hoffmann et al. 2022, table 3


def flops_per_token(config: GPTConfig, context_length: int, *, frozen: bool = False) -> float:
    """Floating-point operations of forward and backward for one token (Kaplan et al. 2020, section 2.1).

    2 per weight in forward and 4 in backward; the output head is included, the embeddings only look up rows. A token
    attends to half of the window on average, because of the causal mask.
    frozen: the weights have no gradients, so they take 2 in backward. LoRA's adapter, which has some, is left out.
    """
    matrices = config.n_layers * (4 * config.d_model**2 + 2 * config.d_model * config.mlp_width)
    head = config.vocab_size * config.d_model
    return (4.0 if frozen else 6.0) * (matrices + head) + 6.0 * config.n_layers * config.d_model * context_length


def optimal_tokens(config: GPTConfig) -> int:
    """Tokens after which a larger model would have been the better use of the same compute (Hoffmann et al. 2022)."""
    return TOKENS_PER_PARAMETER * config.parameter_count()[0]


def traffic(work: Workload) -> float:
    """Bytes that each process sends in a step.

    DDP all-reduces the gradients once per step: each process sends twice their size. FSDP gathers the blocks' weights
    in the forward and in the backward pass of every micro-batch, and the embeddings once per micro-batch. It reduces
    the gradients once per step.
    """
    parameters, body = work.config.parameter_count()
    if work.strategy == "none":
        return 0.0
    if work.strategy == "ddp":
        sent = 2.0 * FP32 * parameters
    else:
        gathered = 2 * body * work.forward_bytes + (parameters - body) * FP32
        sent = FP32 * parameters + float(gathered) * work.grad_accum
    return sent * (work.processes - 1) / work.processes
