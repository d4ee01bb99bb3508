"""What two processes find out about a model that FSDP divides: run by torchrun, prints a JSON object.

Each check returns values that tests/distributed/test_sharding.py compares.
"""

import json
import os

import torch
import torch.distributed as dist

from src.distributed.processes import join
from src.distributed.sharding import local_part, whole
from src.model.gpt import GPTConfig, GPTModel, on_meta_device
from src.runtime import Runtime, seed_step
from src.training.losses import language_model_loss
from src.training.processes import share_model

CONFIG = GPTConfig(vocab_size=61, context_length=16, d_model=20, n_heads=2, n_layers=3)  # 61 rows do not divide evenly
CPU = torch.device("cpu")


def initial_weights() -> dict[str, bool]:
    """Whether the weights of a model that started without memory are those of one process, and each part is a half."""
    seed_step(7, 0)
    expected = GPTModel(CONFIG).state_dict()
    model = on_meta_device(CONFIG)
    share_model(model, language_model_loss, Runtime(CPU, "fp32", "test", strategy="fsdp"), seed=7)
    found = whole(model.state_dict())
    parts = [local_part(parameter).numel() / parameter.numel() for parameter in model.parameters()]
    return {
        "equal": all(torch.equal(found[name], expected[name]) for name in expected),
        "halves": all(abs(part - 0.5) < 0.01 for part in parts),
    }


CHECKS = [initial_weights]


def main() -> None:
    torch.set_num_threads(1)
    join(CPU)
    results = {check.__name__: check() for check in CHECKS}
    if os.environ["RANK"] == "0":
        print(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
