"""A description of a model, as rows of a name and a text: its sizes, its training, and where it comes from."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from src.checkpoint.loaded_model import LoadedModel
from src.common.disk import format_bytes


def model_rows(base: LoadedModel) -> Iterator[tuple[str, str]]:
    """A model's sizes, tokenizer and template: (name, text) of each row, for example ("tokenizer", "GPT-2's")."""
    config, encoding = base.model.config, base.encoding
    files = [file for file in base.path.iterdir() if file.is_file()] if base.path.is_dir() else [base.path]
    saved = datetime.fromtimestamp(max(file.stat().st_mtime for file in files)).strftime("%Y-%m-%d %H:%M")
    size = format_bytes(sum(file.stat().st_size for file in files))
    yield "model", f"{base.path}, {base.reason}: {size}, saved {saved}"
    total, body = config.parameter_count()
    shape = f"{config.n_layers} layers, {config.d_model} wide, {config.n_heads} heads, context {config.context_length}"
    yield "size", f"{shape}: {total:,} parameters, {body:,} without the embeddings"
    yield "weights", f"SHA-256 {base.parent['weights_sha256']}"
    yield "tokenizer", f"{encoding.name}, {encoding.n_vocab:,} tokens"
    yield "template", _text(base.metadata.get("template")) or "none: it was not tuned to answer"


def training_rows(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A model's training: (name, text) of each row, from the metadata of its checkpoint."""
    source = _text(metadata.get("source"))
    yield "stage", _training(metadata) + (f", converted from {source}" if source else "")
    settings = _mapping(metadata.get("settings"))
    summary = {str(name): str(text) for name, text in _mapping(metadata.get("summary")).items()}
    path, described = _text(settings.get("data")), summary.get("data", "")
    if path or described:
        content = f"content SHA-256 {_text(metadata.get('data_sha256'))}"
        yield "data", ", ".join(filter(None, ["" if path in described else path, described, content]))
    yield from ((name, summary[name]) for name in ("validation", "steps") if name in summary)
    if settings:
        yield "settings", ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    if versions := _mapping(metadata.get("versions")):
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def describe_ancestor(ancestor: Mapping[str, Any]) -> str:
    """An earlier model of the chain in one line: its path, its training, and the start of its hash."""
    recorded = ancestor.get("weights_sha256") or ancestor.get("sha256")
    return f"{ancestor['path']} ({_training(ancestor)}), SHA-256 {str(recorded)[:12]}..."


def _training(metadata: Mapping[str, Any]) -> str:
    """The stage, steps and losses in one line."""
    parts = [_text(metadata.get("stage")) or "unknown stage"]
    if step := _text(metadata.get("step")):
        parts.append(f"step {step} (epoch {_text(metadata.get('epoch'))})")
    for key, name in (
        ("first_loss", "loss before"),
        ("best_loss", "best"),
        ("val_loss", "val"),
        ("train_loss", "train"),
    ):
        if isinstance(value := metadata.get(key), float):
            parts.append(f"{name} {value:.4f}")
    return ", ".join(parts)


def _mapping(value: object) -> Mapping[Any, Any]:
    """The value if it is a mapping; empty for anything else, which a damaged file may hold instead."""
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    """A value as text; empty for anything but a text or a number, which a damaged file may hold instead."""
    return str(value)[:500] if isinstance(value, str | int | float) else ""
