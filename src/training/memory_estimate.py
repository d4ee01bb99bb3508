"""The memory that a training step needs in each process, by purpose: closed formulas, nothing is allocated.

`c`: channels (d_model). `ff`: channels inside an MLP. `body`: parameters without the embeddings.
"""

from dataclasses import dataclass
from typing import Literal

from src.distributed.processes import Strategy
from src.model.attention import BLOCK_QUERIES
from src.model.config import GPTConfig
from src.model.lora import TARGETS, Targets, adapter_size
from src.training.tied_head import CHUNK_ROWS

PROCESS_BASELINE = 0.45e9  # bytes of Python, PyTorch and the libraries that a run imports
FRAGMENTATION = 1 / 10  # of the memory held: gaps between blocks of different sizes
GLOO_COPIES = 8  # of the embeddings, at the peak of an exchange or of a save on CPUs; measured
FP32 = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A training step, and how processes share it."""

    config: GPTConfig
    batch_size: int  # sequences per micro-batch, over all processes
    context_length: int  # tokens per sequence
    grad_accum: int = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    half: bool = False  # the forward pass is in bf16 or fp16
    strategy: Strategy = "none"
    processes: int = 1
    activation_checkpointing: bool = False
    # With a frozen reference model. A sequence then stands for half a context of prompt and two halves of answers, and
    # the logits of all answers are in memory.
    dpo: bool = False
    on_gpu: bool = False
    lora: int | None = None  # the rank of an adapter, if only it is trained
    lora_targets: Targets = "attention"
    takes_lora: bool = False  # whether the stage has --lora

    @property
    def trained_parameters(self) -> int:
        """The number of parameters that have gradients and optimizer state."""
        if self.lora:
            return adapter_size(self.config, self.lora, self.lora_targets)
        return self.config.parameter_count()[0]

    @property
    def sequences(self) -> int:
        """Sequences of a micro-batch in one process."""
        return -(-self.batch_size // self.processes)

    @property
    def supervised_positions(self) -> int:
        """Positions of a micro-batch in one process that have a target: the output head runs on them."""
        return self.sequences * self.context_length

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch in one process."""
        return self.supervised_positions * 3 // 2 if self.dpo else self.supervised_positions

    @property
    def shards(self) -> int:
        """The number of shards that weights, gradients and optimizer state are split into."""
        return self.processes if self.strategy == "fsdp" else 1

    @property
    def forward_bytes(self) -> int:
        """Bytes of a number in the forward pass."""
        return 2 if self.half else FP32


def memory_by_purpose(work: Workload) -> dict[str, float]:
    """Peak memory of one process in bytes, by purpose. Their sum is the peak of the process."""
    state = {"weights": _weights(work), "optimizer": _optimizer(work)}
    # The peak comes when backward has finished the head and no block yet, when all gradients exist, or in a save.
    moments = (_after_the_head(work), _after_the_blocks(work), _while_merging(work))
    held = max(moments, key=lambda parts: sum(parts.values()))
    data = 2 * 8 * work.tokens * work.grad_accum  # inputs and targets, int64
    step = {**state, **held, "data": data, "save": _copies_to_save(work)}
    return {**step, "fragmentation": FRAGMENTATION * sum(step.values()), "process": PROCESS_BASELINE}


def peak(work: Workload) -> float:
    """The peak memory of one process in bytes."""
    return sum(memory_by_purpose(work).values())


def _weights(work: Workload) -> float:
    parameters = work.config.parameter_count()[0]
    if work.lora:  # in DPO, policy and reference share the frozen weights
        return FP32 * (parameters + work.trained_parameters)
    return (2 if work.dpo else 1) * FP32 * parameters / work.shards


def _optimizer(work: Workload) -> float:
    """AdamW has two moments of each parameter, Muon one of each matrix in the blocks."""
    _, body = work.config.parameter_count()
    return FP32 * (2 * work.trained_parameters - (body if work.optimizer == "muon" else 0)) / work.shards


def _copies_to_save(work: Workload) -> float:
    """Under FSDP, a copy of weights and optimizer state is saved in the background; for a GPU, it is in CPU memory."""
    if work.strategy != "fsdp" or work.on_gpu:
        return 0.0
    return FP32 * work.config.parameter_count()[0] / work.shards + _optimizer(work)


def _after_the_head(work: Workload) -> dict[str, float]:
    """At the start of backward: all activations are saved, and only the output head's gradient exists."""
    c, ff = work.config.d_model, work.config.mlp_width
    head = work.config.vocab_size * c
    _, body = work.config.parameter_count()
    logits = _logits(work)
    # One layer's backward: in the MLP, the recomputed activation and two gradients of width ff; four gradients of width
    # c around it. They reuse the memory of the logits.
    temporaries = work.tokens * (3 * ff + 4 * c) * FP32
    half_weights = 2 * (body + head) if work.half and work.strategy != "fsdp" else 0  # copies made by autocast
    gradients = 0 if work.lora else FP32 * head
    if work.grad_accum > 1 or work.strategy == "ddp":  # those of earlier micro-batches, or DDP's buckets
        gradients += FP32 * work.trained_parameters
    return {
        "gradients": gradients,
        "activations": _saved_activations(work) + half_weights + max(0, temporaries - logits),
        "logits": logits,
        "exchange": _gathered(work),
    }


def _logits(work: Workload) -> float:
    """The logits that are in memory together, with their copies: one chunk's or, in DPO, those of all answers."""
    if work.dpo:  # logits, their log-probabilities and the gradient
        return work.supervised_positions * work.config.vocab_size * 3 * FP32
    bytes_per_logit = FP32 + 2 if work.half else FP32  # in half precision, with an fp32 copy
    return min(CHUNK_ROWS, work.tokens) * work.config.vocab_size * bytes_per_logit


def _saved_activations(work: Workload) -> float:
    """The activations that all layers save; with activation checkpointing, the layers' inputs and one layer's."""
    c, ff, layers = work.config.d_model, work.config.mlp_width, work.config.n_layers
    # Per token of a layer: x before each LayerNorm; both LayerNorm outputs, q, k, v, y, and the MLP's h.
    layer: float = 2 * FP32 * c + (6 * c + ff - _unsaved_channels(work)) * work.forward_bytes
    if work.half and not work.on_gpu:
        layer += _saved_by_attention_in_blocks(work)
    if work.activation_checkpointing:
        return work.tokens * (layers * FP32 * c + layer)
    return work.tokens * layers * layer


def _unsaved_channels(work: Workload) -> int:
    """Channels per token that a layer does not save with LoRA, because a frozen matrix does not need its input."""
    if not work.lora:
        return 0
    targets = TARGETS[work.lora_targets]
    in_blocks = work.half and not work.on_gpu  # other kinds of attention save y themselves
    inputs = ("mlp.c_fc" not in targets) + (in_blocks and "attn.c_proj" not in targets)
    return inputs * work.config.d_model - work.lora * len(targets)


def _while_merging(work: Workload) -> dict[str, float]:
    """While the best model is saved: the weights with the adapter merged into them are copies."""
    if not work.lora:
        return {}
    c, ff = work.config.d_model, work.config.mlp_width
    sizes = {"attn.c_attn": 3 * c * c, "attn.c_proj": c * c, "mlp.c_fc": c * ff, "mlp.c_proj": c * ff}
    merged = work.config.n_layers * sum(sizes[name] for name in TARGETS[work.lora_targets])
    return {"gradients": FP32 * work.trained_parameters, "merged": FP32 * merged}


def _saved_by_attention_in_blocks(work: Workload) -> float:
    """Bytes per token, beyond q, k, v and y: the attention weights, and copies of the keys and values of each block."""
    length = work.context_length
    blocks, rest = divmod(length, BLOCK_QUERIES)
    keys = BLOCK_QUERIES * blocks * (blocks + 1) / 2 + (length if rest else 0)  # of all blocks
    weights = BLOCK_QUERIES**2 * blocks * (blocks + 1) / 2 + rest * length  # of one head
    return 2 * work.config.n_heads * weights / length + 2 * 2 * work.config.d_model * (keys / length - 1)


def _after_the_blocks(work: Workload) -> dict[str, float]:
    """At the end of backward: no activations are left, and all gradients exist."""
    parameters, body = work.config.parameter_count()
    embeddings = FP32 * (parameters - body)  # the largest group of weights
    scratch = embeddings if work.strategy == "ddp" else 0.0  # of the exchange
    unsharded = 0.0
    if work.strategy == "fsdp":  # whole gradients, until they are exchanged
        unsharded = FP32 * parameters if work.grad_accum > 1 else embeddings
    return {
        "gradients": FP32 * work.trained_parameters / work.shards + unsharded,
        "activations": 0.0,
        "logits": 0.0,
        "exchange": _gathered(work) + scratch,
    }


def _gathered(work: Workload) -> float:
    """Weights that FSDP has gathered: the embeddings for the whole step and two blocks, plus copies to send.

    Gloo copies what it sends, and a CPU's buffers rarely fit the gaps that freed ones leave.
    """
    if work.strategy != "fsdp":
        return 0.0
    parameters, body = work.config.parameter_count()
    block = body / work.config.n_layers * work.forward_bytes
    copies = 2 if work.on_gpu else GLOO_COPIES
    return copies * FP32 * (parameters - body) + min(2, work.config.n_layers) * block
