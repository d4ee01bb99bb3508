"""python -m src.look: write a page that shows what your own model does with a prompt, and open it in a browser.

The page shows where each head of each layer looks (attention), and which next token each layer would guess (logit
lens). It is one HTML file that needs no network. The prompt may have up to 64 tokens.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("src.look", outlives_output=True)

import base64
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from src.checkpoint import MODEL_HELP, LoadedModel, load_base
from src.cli import flag, parse
from src.common.atomic_file import atomic_write
from src.common.messages import one_line, spelling, without_surrogates
from src.model.gpt import GPTModel
from src.model.transformerBlock import TransformerBlock

MAX_TOKENS = 64  # the page grows with the square of the prompt: half a megabyte for GPT-2 124M
GUESSES = 5  # shown for each layer
TEMPLATE = "look.html"  # next to this file
DATA_MARK = "{{data}}"


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("auto", MODEL_HELP, path=True)
    prompt: str = flag("", f"the text that the model reads, up to {MAX_TOKENS} tokens")
    out: Path = flag(Path("logs/look.html"), "the page to write, a .html file; an earlier one is replaced")

    def __post_init__(self) -> None:
        problems = []
        if not self.prompt.strip():
            problems.append("--prompt needs a text for the model to read")
        if self.out.suffix.lower() != ".html":
            problems.append(f"--out must be a file name ending in .html, got {str(self.out)!r}")
        if problems:
            raise ValueError("; ".join(problems))


@torch.no_grad()
def observe(model: GPTModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    """What happens inside the model on a sequence of T tokens: int64 (T,).

    Returns the attention weights (layers, heads, T, T), one row for each token that looks; and the residual stream
    (layers + 1, T, C): the embeddings, and the sum after each layer.
    """
    states: list[Tensor] = []
    stages = [*model.h, model.ln_f]  # the input of each is the residual stream so far
    hooks = [stage.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0][0])) for stage in stages]
    try:
        with model.evaluating():
            model.hidden_states(ids[None])
    finally:
        for hook in hooks:
            hook.remove()
    blocks = cast(Iterable[TransformerBlock], model.h)
    weights = [attention_weights(block, x) for block, x in zip(blocks, states[:-1], strict=True)]
    return torch.stack(weights), torch.stack(states)


def attention_weights(block: TransformerBlock, x: Tensor) -> Tensor:
    """The attention weights (H, T, T) of a block on its input (T, C). The model itself uses a fused kernel."""
    T, C = x.shape
    heads = (T, block.attn.n_heads, C // block.attn.n_heads)
    q, k, _ = (part.view(heads).transpose(0, 1) for part in block.attn.c_attn(block.ln_1(x)).split(C, dim=1))
    scores = q @ k.transpose(1, 2) / math.sqrt(heads[2])  # (H, T, T)
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf).softmax(dim=-1)


@torch.no_grad()
def lens(model: GPTModel, state: Tensor, n_vocab: int) -> Tensor:
    """Next-token probabilities (T, n_vocab) if the model ended here: the output head on a residual stream (T, C)."""
    return model.head(model.ln_f(state))[:, :n_vocab].float().softmax(dim=-1)


def page_data(base: LoadedModel, ids: Sequence[int]) -> dict[str, Any]:
    """Everything that the page shows, in plain values.

    "attention" holds a byte, 255 for a weight of 1, for each layer, head, token, and token that it may look at.
    """
    model, encoding = base.model, base.encoding
    weights, states = observe(model, torch.tensor(ids))
    may_look = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    shares = (255 * weights[:, :, may_look]).round().byte().cpu().numpy().tobytes()
    guesses, actual = [], []
    for state in states:
        probs = lens(model, state, encoding.n_vocab)
        top = probs.topk(min(GUESSES, encoding.n_vocab))
        guesses.append([
            [[spelling(encoding.decode_single_token_bytes(id_)), round(p, 4)] for id_, p in zip(*row, strict=True)]
            for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ])  # fmt: skip
        actual.append([round(float(probs[i, id_]), 4) for i, id_ in enumerate(ids[1:])])
    return {
        "model": str(base.path),
        "tokens": [spelling(encoding.decode_single_token_bytes(id_)) for id_ in ids],
        "layers": model.config.n_layers,
        "heads": model.config.n_heads,
        "attention": base64.b64encode(shares).decode("ascii"),
        "guesses": guesses,
        "actual": actual,
    }


def page(data: dict[str, Any]) -> str:
    """The page. No text in the data can end the script element that holds it."""
    template = Path(__file__).with_name(TEMPLATE).read_text(encoding="utf-8")
    return template.replace(DATA_MARK, json.dumps(data).replace("<", "\\u003c"))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page for the model and the prompt of the flags; returns the exit code."""
    flags, _ = parse(Flags, argv, __doc__)
    base = load_base(flags.model)
    ids = base.encoding.encode_ordinary(without_surrogates(flags.prompt))
    limit = min(MAX_TOKENS, base.model.config.context_length)
    if not 0 < len(ids) <= limit:
        raise ValueError(f"--prompt has {len(ids)} tokens, and the page shows 1 to {limit}; shorten it")
    content = page(page_data(base, ids)).encode("utf-8")
    try:
        with atomic_write(flags.out) as file:
            file.write(content)
    except OSError as error:
        raise OSError(f"{flags.out}: could not be written ({one_line(error)}); pass another file as --out") from error
    print(f"model    {base.path}, {base.reason}")
    print(f"prompt   {len(ids)} tokens")
    print(f"page     {flags.out}, {len(content) / 1e3:,.0f} kB: open it in a browser")
    return 0
