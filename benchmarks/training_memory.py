"""python -m benchmarks.training_memory: peak memory and time of training steps at 124M, ours beside transformers'.

Each runs in a process of its own: the same random batch, AdamW, three steps after one to warm up. The peak is the
process's, with its imports. For Linux and macOS.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

BATCH_SIZE, CONTEXT_LENGTH = 4, 256


def ours() -> Callable[[], None]:
    import torch

    from src.data.batching import Batch
    from src.model.gpt import GPT_CONFIGS, GPTModel
    from src.training.losses import language_model_loss
    from src.training.optim import make_adamw

    model = GPTModel({**GPT_CONFIGS["gpt2-124M"], "dropout": 0.0})
    optimizer = make_adamw(model, max_lr=1e-5, weight_decay=0.1)
    ids = torch.randint(50257, (BATCH_SIZE, CONTEXT_LENGTH + 1))
    batch = Batch(ids[:, :-1], ids[:, 1:])

    def step() -> None:
        optimizer.zero_grad()
        (language_model_loss(model, batch)[0] / batch.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def theirs() -> Callable[[], None]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1, fused=True)
    ids = torch.randint(50257, (BATCH_SIZE, CONTEXT_LENGTH + 1))
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def step() -> None:
        optimizer.zero_grad()
        model(inputs, labels=inputs, shift_labels=targets).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def measure(name: str) -> None:
    step = {"ours": ours, "transformers": theirs}[name]()
    step()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes on macOS, kB on Linux
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(f"{name:<14} {peak_gb:5.2f} GB peak | {statistics.median(times):6.2f} s a step", flush=True)


def main() -> None:
    if len(sys.argv) == 2:
        measure(sys.argv[1])
        return
    print(f"124M parameters, {BATCH_SIZE} x {CONTEXT_LENGTH} tokens, fp32, AdamW")
    for name in ("ours", "transformers", "ours", "transformers"):
        subprocess.run([sys.executable, "-m", "benchmarks.training_memory", name], check=True)


if __name__ == "__main__":
    main()
