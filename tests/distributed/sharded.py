"""What two processes find out about a model that FSDP shards: values that test_sharding.py compares."""

import atexit
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from src.data.batching import Batch
from src.distributed.environment import rank
from src.distributed.processes import join
from src.distributed.sharding import gathered, is_sharded, to_local
from src.model.generate import TextGenerator
from src.model.gpt import GPTConfig, GPTModel
from src.model.meta_device import on_meta_device
from src.runtime import Runtime, seed_step
from src.training.losses import language_model_loss
from src.training.samples import sample
from src.training.shared_model import SharedModel, share_model
from tests.fakes import ByteEncoding

CONFIG = GPTConfig(vocab_size=257, context_length=16, d_model=20, n_heads=2, n_layers=3)  # an odd number of rows
CPU = torch.device("cpu")


def sharded_model(precision: str) -> tuple[GPTModel, SharedModel]:
    model = on_meta_device(CONFIG)
    runtime = Runtime(CPU, precision, "test", strategy="fsdp")
    return model, share_model(model, language_model_loss, runtime, seed=7)


def batch() -> Batch:
    """Other tokens in each process."""
    ids = torch.randint(257, (2, 17), generator=torch.Generator().manual_seed(rank()))
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())


def initial_weights() -> dict[str, bool]:
    """Whether the weights of a model that started without memory are those of one process, and each part is a half."""
    seed_step(7, 0)
    expected = GPTModel(CONFIG).state_dict()
    model, _ = sharded_model("fp32")
    with TemporaryDirectory() as folder, gathered(model, Path(folder)) as found:
        equal = all(torch.equal(found[name], expected[name]) for name in expected if rank() == 0)
    parts = [to_local(parameter).numel() / parameter.numel() for parameter in model.parameters()]
    return {
        "equal": equal,
        "halves": all(abs(part - 0.5) < 0.01 for part in parts),
    }


def samples() -> dict[str, bool]:
    """Whether the sharded model generates the text of the whole one, and is sharded again afterwards."""
    seed_step(7, 0)
    expected = TextGenerator(GPTModel(CONFIG), ByteEncoding()).sample("abc", 8, seed=1)
    model, _ = sharded_model("fp32")
    generator = TextGenerator(model, ByteEncoding(), None)
    found = sample(model, lambda: generator.sample("abc", 8, seed=1))
    return {"equal": found == expected, "sharded": all(map(is_sharded, (model, *model.h, model.wte)))}


def gradients() -> dict[str, float]:
    """How far the gradients of FSDP are from those of DDP, as a share of the largest, by precision."""
    differences = {}
    for precision in ("fp32", "bf16"):
        runtime = Runtime(CPU, precision, "test", strategy="ddp")
        seed_step(7, 0)
        replica = GPTModel(CONFIG)
        replicated = share_model(replica, language_model_loss, runtime, seed=7)
        model, sharded = sharded_model(precision)
        for shared in (replicated, sharded):
            with runtime.autocast():
                loss, _ = shared.loss(batch())
            loss.backward()
        differences[precision] = max(
            float((part.grad.full_tensor() - whole.grad).abs().max() / whole.grad.abs().max())
            for part, whole in zip(model.parameters(), replica.parameters(), strict=True)
        )
        assert all(part.dtype == part.grad.dtype == torch.float32 for part in model.parameters())
    return differences


def recomputed() -> bool:
    """Whether activation checkpointing changes no bit of the loss and the gradients under FSDP."""
    results = []
    for checkpointing in (False, True):
        model, sharded = sharded_model("fp32")
        model.activation_checkpointing = checkpointing
        loss, _ = sharded.loss(batch())
        loss.backward()
        results.append([loss.detach(), *(to_local(parameter.grad) for parameter in model.parameters())])
    return all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def run_checks() -> dict[str, Any]:
    """The result of each check."""
    torch.set_num_threads(1)
    join(CPU)
    results: dict[str, Any] = {check.__name__: check() for check in (initial_weights, samples, gradients, recomputed)}
    atexit._run_exitfuncs()  # a process that multiprocessing starts ends without it
    return results
