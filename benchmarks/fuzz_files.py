"""Small valid files of models, runs and memories. Used by benchmarks.fuzz."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.fuzz_inputs import odd_value
from src.checkpoint import save_checkpoint
from src.memory.long_term import LongTermMemory
from src.model.foreign import ADAPTER_CONFIG
from src.model.gpt import GPTModel
from src.model.lora import Adapter
from src.model.peft_adapter import WEIGHT_FILES, write_adapter
from src.tokenizer import build_word_encoding, describe
from src.tokenizer.tokenizers.with_unknown import TokenizerWithUnknown
from src.training.optim import make_adamw
from src.training.stage import Progress

IN_OUT = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # stored as (in, out) by Hugging Face


def word_encoding(folder: Path, text: str) -> TokenizerWithUnknown:
    file = folder / "words.txt"
    file.write_text(text, encoding="utf-8")
    return build_word_encoding(file)


def tiny_model(n_vocab: int) -> GPTModel:
    return GPTModel({"vocab_size": n_vocab, "context_length": 8, "d_model": 4, "n_heads": 1, "n_layers": 1})


def run_content(model: GPTModel, encoding: TokenizerWithUnknown) -> dict[str, Any]:
    """The content of a latest_model.pt, after one step."""
    optimizer = make_adamw(model, max_lr=1e-3, weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    progress = Progress(step=1, first_loss=2.0, best_loss=1.5, best_step=1, train_loss=1.6, eval_loss=1.5)
    resume = {"progress": asdict(progress), "scaler": {}, "device": "cpu", "finished": False}
    return {
        "model": model.state_dict(),
        "config": asdict(model.config),
        "stage": "pretrain",
        "epoch": 0,
        "step": 1,
        "train_loss": 1.6,
        "val_loss": 1.5,
        "seed": 1337,
        "settings": {"epochs": 1, "max_steps": None, "max_lr": 1e-3},
        "run_id": "a1b2c3d4",
        "template": None,
        "parent": None,
        "tokenizer": describe(encoding),
        "optimizer": optimizer.state_dict(),
        "resume": {**resume, "identity": {"stage": "pretrain", "precision": "fp32", "seed": 1337}},
    }


def saved(file: Path, content: Mapping[str, Any]) -> bytes:
    """Save a checkpoint with right digests; returns its bytes."""
    save_checkpoint(file, content)
    return file.read_bytes()


def hugging_face_files(file: Path, model: GPTModel) -> tuple[dict[str, Any], bytes]:
    """A config.json, and the bytes of a model.safetensors."""
    state = {n: t.T if n.endswith(IN_OUT) else t for n, t in model.state_dict().items()}
    save_file({f"transformer.{name}": tensor.contiguous() for name, tensor in state.items()}, file)
    c = model.config
    size = {"n_positions": c.context_length, "n_embd": c.d_model, "n_head": c.n_heads, "n_layer": c.n_layers}
    config = {"model_type": "gpt2", "activation_function": "gelu_new", "vocab_size": c.vocab_size, **size}
    return config, file.read_bytes()


def adapter_files(folder: Path, model: GPTModel, base: Path) -> tuple[dict[str, Any], bytes]:
    """An adapter_config.json, and the bytes of an adapter_model.safetensors, for the model in the file `base`."""
    c = model.config.d_model
    tensors = {"h.0.attn.c_attn.lora_A": torch.ones(2, c), "h.0.attn.c_attn.lora_B": torch.ones(3 * c, 2)}
    folder.mkdir()
    write_adapter(folder, Adapter(rank=2, alpha=4.0, tensors=tensors, scale=2.0), str(base), {"prompt_template": "x"})
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return config, (folder / WEIGHT_FILES[0]).read_bytes()


def saved_memory(file: Path, sentences: Iterable[str]) -> bytes:
    memory = LongTermMemory(file, print)
    for sentence in sentences:
        memory.remember(sentence, "chat")
    memory.close()
    return file.read_bytes()


def alter_row(rng: Random, file: Path) -> None:
    """Put an odd value into a row of a memory, as another program could."""
    db = sqlite3.connect(file)
    try:
        column = rng.choice(["text", "session", "created", "id", "same"])
        value = rng.choice([odd_value(rng), b"\xff\x00", -(2**63), 2**63 - 1])
        db.execute(f"UPDATE memory SET {column} = ? WHERE id = 1", (value,))
        db.commit()
    except (sqlite3.Error, OverflowError, UnicodeEncodeError):
        pass  # the file or the value is too odd for SQLite itself
    finally:
        db.close()
