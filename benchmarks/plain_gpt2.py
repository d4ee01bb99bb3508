"""The baseline: GPT-2 and its optimizer as most PyTorch projects write them.

As in nanoGPT: a tied head, logits at every position, `F.cross_entropy` over all of them, and PyTorch's AdamW.
B batch, T tokens, C channels, H heads, D head size, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.gpt import GPTModel


class PlainBlock(nn.Module):
    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.c_attn, self.c_proj = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.c_fc, self.mlp_proj = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)
        self.act = nn.GELU(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(C, dim=2)
        q, k, v = (part.view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.mlp_proj(self.act(self.c_fc(self.ln_2(x))))


class PlainGPT2(nn.Module):
    """config: an entry of GPT_CONFIGS. There is no dropout."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        d_model = config["d_model"]
        self.wte = nn.Embedding(config["vocab_size"], d_model)
        self.wpe = nn.Embedding(config["context_length"], d_model)
        self.blocks = nn.ModuleList(PlainBlock(d_model, config["n_heads"]) for _ in range(config["n_layers"]))
        self.ln_f = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, config["vocab_size"], bias=False)
        self.apply(self._initialise)
        self.head.weight = self.wte.weight
        for name, parameter in self.named_parameters():
            if name.endswith("proj.weight"):  # they add to the residual stream
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config["n_layers"]))

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over all targets; ids and targets are (B, T)."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.ln_f(x))  # (B, T, V)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def as_our_model(model: PlainGPT2, config: dict) -> GPTModel:
    """The same model, with the names of `GPTModel`."""
    names = {
        "blocks": "h",
        "c_attn": "attn.c_attn",
        "c_proj": "attn.c_proj",
        "c_fc": "mlp.c_fc",
        "mlp_proj": "mlp.c_proj",
    }
    ours = GPTModel(config)
    state = {
        ".".join(names.get(part, part) for part in name.split(".")): value for name, value in model.state_dict().items()
    }
    del state["head.weight"]
    ours.load_state_dict(state)
    return ours


def plain_adamw(
    model: nn.Module, max_lr: float, weight_decay: float = 0.1, beta2: float = 0.95, *, fused: bool = False
) -> torch.optim.AdamW:
    """Weight decay on matrices only, as in nanoGPT. fused: take the fused kernel also on a CPU, unlike nanoGPT."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=max_lr, betas=(0.9, beta2), fused=fused or torch.cuda.is_available() or None)
