"""Text generated during training, even if FSDP shards the model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.data.prompts import TEMPLATE, Message, render_conversation
from src.distributed.environment import is_first
from src.distributed.sharding import is_sharded
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.model.meta_device import on_meta_device


def sample(model: GPTModel, generate: Callable[[], str]) -> str:
    """The text that `generate` returns, or "" in a process whose text is not needed."""
    if not is_sharded(model):
        return generate() if is_first() else ""
    with decodable(model):
        return generate()


def sample_answers(
    generator: TextGenerator, prompts: Sequence[Sequence[Message]], max_tokens: int, template: str = TEMPLATE
) -> str:
    """The last question of each prompt, and the model's greedy answer, which fills up to half of the context."""
    lines, max_tokens = [], max(1, min(max_tokens, generator.model.config.context_length // 2))
    for messages in prompts:
        ids, _ = render_conversation(messages, generator.encoding, template)
        question = messages[-1].text.splitlines()[0][:100]
        lines.append(f"{question}\n  -> {generator.generate(ids, max_tokens, temperature=0)}")
    return "\n".join(lines)


@contextmanager
def decodable(model: GPTModel) -> Iterator[None]:
    """Inside, a sharded model can generate text; a whole model is unchanged. All processes must generate the same text.

    FSDP would gather all weights for every token. Here each linear layer stays sharded: a process computes its part of
    the outputs, and only those are gathered. Embeddings and LayerNorms are gathered once, as in a training step.
    """
    if not is_sharded(model):
        yield
        return
    sharded = {name: getattr(model, name) for name in ("wte", "wpe", "h", "ln_f")}
    gathered = _with_sharded_layers(model)
    for name in sharded:
        setattr(model, name, getattr(gathered, name))
    try:
        yield
    finally:
        for name, module in sharded.items():
            setattr(model, name, module)


def _with_sharded_layers(model: GPTModel) -> GPTModel:
    """A copy of the model whose linear layers stay sharded, and whose other weights are gathered."""
    result = on_meta_device(model.config)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            result.set_submodule(name, _ShardedLinear(module.weight, module.bias))
        elif isinstance(module, nn.LayerNorm | nn.Embedding):
            whole = {key: weight.full_tensor() for key, weight in module.state_dict().items()}
            result.get_submodule(name).load_state_dict(whole, assign=True)
    return result.requires_grad_(False)


class _ShardedLinear(nn.Module):
    """A linear layer whose weights are sharded by rows: each process computes some of the outputs."""

    def __init__(self, weight: Any, bias: Any) -> None:
        super().__init__()
        self._weight, self._bias = weight.detach(), bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs), the same in every process."""
        from torch.distributed.tensor import DTensor, Shard  # slow to import, and only needed here

        part = F.linear(x, self._weight.to_local(), self._bias.to_local())
        whole = torch.empty(*x.shape[:-1], len(self._weight), device="meta")  # its shape, for parts of different sizes
        outputs = DTensor.from_local(
            part, self._weight.device_mesh, [Shard(-1)], run_check=False, shape=whole.shape, stride=whole.stride()
        )
        return outputs.full_tensor()
