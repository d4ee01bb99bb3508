"""Checkpoints are atomic and self-describing, their code is never executed, and damage is named in one line."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import main
from src import stages
from src.checkpoint import (
    BEST,
    FORMAT,
    LATEST,
    STAGE_OUTPUTS,
    find_model,
    load_base,
    load_checkpoint,
    load_model,
    producing_command,
    read_checkpoint,
    save_checkpoint,
    saved_config,
    weights_sha256,
)
from src.model.gpt import GPTModel
from src.tokenizer import describe, load_gpt2_encoding
from src.tokenizer.core.constants import RESERVED
from src.tokenizer.core.models import Vocabulary
from src.tokenizer.gpt2 import printable_bytes
from src.tokenizer.tokenizers.factory import create_tokenizer
from src.training.optim import make_adamw

CONFIG = {"vocab_size": 61, "context_length": 16, "d_model": 64, "n_heads": 1, "n_layers": 2, "dropout": 0.0}
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # for the damaged files below
TOKENIZER = describe(create_tokenizer("simple", Vocabulary([*RESERVED, "be", "or", "to"], ())))
ORDER = ("dpo", "sft", "scratch")
IDS = torch.arange(12).view(1, 12)


def new_model(seed: int = 0, **changes: Any) -> GPTModel:
    torch.manual_seed(seed)
    model = GPTModel({**CONFIG, **changes}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def description(model: GPTModel) -> dict[str, Any]:
    """The content of a checkpoint without optimizer state."""
    return {
        "stage": "sft",
        "config": asdict(model.config),
        "epoch": 2,
        "step": 30,
        "train_loss": 1.5,
        "val_loss": None,
        "seed": 7,
        "template": "a template",
        "tokenizer": TOKENIZER,
        "parent": {"path": "checkpoints/a.pt", "weights_sha256": "0" * 64},
        "model": model.state_dict(),
    }


@pytest.fixture(scope="module")
def model() -> GPTModel:
    return new_model()


@pytest.fixture(scope="module")
def intact(model: GPTModel, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a valid checkpoint."""
    path = tmp_path_factory.mktemp("intact") / "model.pt"
    save_checkpoint(path, description(model))
    return path.read_bytes()


@pytest.fixture
def best(tmp_path: Path, intact: bytes) -> Path:
    """A valid checkpoint of the SFT stage, in the folder of that stage."""
    path = tmp_path / "instruction_tuned" / BEST
    path.parent.mkdir()
    path.write_bytes(intact)
    return path


def refusal(load: Callable[[Path], object], path: Path) -> str:
    """The one-line ValueError of a refused file. It names the file and the command to run."""
    with pytest.raises(ValueError) as refused:
        load(path)
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    assert line.endswith("with python instruction_tune.py")
    return line


def same_weights(model: GPTModel, other: GPTModel) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- saving


def test_a_checkpoint_round_trips(best: Path, model: GPTModel) -> None:
    loaded, metadata = load_model(best)
    assert same_weights(loaded, model)
    assert not loaded.training
    assert loaded.config == model.config
    expected = {key: value for key, value in description(model).items() if key != "model"}
    assert {key: metadata[key] for key in expected} == expected
    assert "model" not in metadata
    with torch.no_grad():
        assert torch.equal(loaded(IDS), model(IDS))


def test_a_loaded_model_can_be_trained(best: Path, model: GPTModel) -> None:
    before = best.read_bytes()
    loaded, _ = load_model(best)
    optimizer = make_adamw(loaded, max_lr=0.1, weight_decay=0.1)
    loaded(IDS).sum().backward()
    optimizer.step()
    assert not same_weights(loaded, model)
    assert best.read_bytes() == before  # although the weights are mapped from the file


def test_a_checkpoint_describes_itself(best: Path, model: GPTModel) -> None:
    content = torch.load(best, weights_only=True)
    assert content["format"] == FORMAT
    assert content["versions"]["torch"] == torch.__version__
    assert content["versions"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    rebuilt = GPTModel(content["config"])
    rebuilt.load_state_dict(content["model"])
    assert same_weights(rebuilt, model)


def test_tied_weights_are_saved_once(best: Path, model: GPTModel) -> None:
    names = list(read_checkpoint(best)["model"])
    assert names.count("wte.weight") == 1 and not [name for name in names if "head" in name]
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert weights < best.stat().st_size < weights + 16_000


def test_saving_creates_the_folder_and_one_file(tmp_path: Path, model: GPTModel) -> None:
    path = tmp_path / "a" / "b" / LATEST
    save_checkpoint(path, description(model))
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_is_flushed_before_it_is_renamed(best: Path, model: GPTModel, monkeypatch) -> None:
    order, flush, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("flush"), flush(number))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append((Path(a).parent, b)), replace(a, b))[1])
    save_checkpoint(best, description(model))
    assert order == ["flush", (best.parent, best)]


def half_then(act: Callable[[], None]) -> Callable:
    """A torch.save that writes part of the file and then fails."""

    def save(content: object, file: Any) -> None:
        file.write(b"half a checkpoint")
        file.flush()
        act()

    return save


@pytest.mark.parametrize(
    "error", [RuntimeError("writing failed\nat: 1"), OSError(28, "No space left"), KeyboardInterrupt()]
)
def test_a_failed_save_leaves_the_old_file_unchanged(
    best: Path, intact: bytes, monkeypatch, error: BaseException
) -> None:
    def fail() -> None:
        assert list(best.parent.glob(f".{BEST}.*.tmp"))
        raise error

    monkeypatch.setattr(torch, "save", half_then(fail))
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError) as failed:
        save_checkpoint(best, description(new_model(1)))
    if isinstance(failed.value, OSError):
        assert str(failed.value).startswith(f"{best}: could not be written (")
        assert str(failed.value).endswith("); its old content is unchanged") and "\n" not in str(failed.value)
    assert best.read_bytes() == intact
    assert list(best.parent.iterdir()) == [best]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_disk_that_fills_up_leaves_the_old_file_unchanged(best: Path, intact: bytes) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(intact) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written .*; its old content is unchanged") as failed:
            save_checkpoint(best, description(new_model(1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(failed.value)
    assert best.read_bytes() == intact
    assert list(best.parent.iterdir()) == [best]


def test_a_killed_save_leaves_the_old_file_unchanged(best: Path, model: GPTModel, monkeypatch) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(main.__file__).parent)!r})
import torch
from pathlib import Path
from src.checkpoint import save_checkpoint
write = torch.save
def half(content, file):
    write(content, file)
    file.truncate(file.tell() // 2)
    file.flush()
    os._exit(9)  # like kill -9
torch.save = half
save_checkpoint(Path(sys.argv[1]), {{"model": {{"w": torch.zeros(10_000)}}}})
"""
    ended = subprocess.run([sys.executable, "-c", program, str(best)], timeout=120)
    assert ended.returncode == 9
    (left,) = best.parent.glob(f".{BEST}.*.tmp")
    assert left.stat().st_size > 10_000
    assert same_weights(load_model(best)[0], model)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0 if left.exists() else 2**40))
    save_checkpoint(best, description(model))  # deletes the temporary file of the dead process first
    assert list(best.parent.iterdir()) == [best]


def test_a_full_disk_is_reported_before_anything_is_written(best: Path, intact: bytes, monkeypatch) -> None:
    weights = {"w": torch.zeros(20_000_000)}
    asked = []
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("wrote"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=81_000_000))
    with pytest.raises(OSError) as failed:
        save_checkpoint(best, {"model": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 1.0}]}})
    assert str(failed.value) == f"{best} needs 96.8 MB, but the disk has only 81.0 MB free; nothing was overwritten"
    assert asked == [best.parent]
    assert best.read_bytes() == intact


def test_the_optimizer_state_is_part_of_the_needed_disk_space(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**7))
    content = {"model": {"w": torch.zeros(10)}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3_000_000)}}}}
    with pytest.raises(OSError, match="needs 28.8 MB, but the disk has only 10.0 MB free"):
        save_checkpoint(tmp_path / LATEST, content)


# --- refused files


class Hostile:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("load", [read_checkpoint, load_model])
def test_code_in_a_checkpoint_is_refused_and_never_run(best: Path, load: Callable, zipped: bool) -> None:
    made = best.parent / "made"
    content = {"format": FORMAT, "config": CONFIG, "model": Hostile(made)}
    if zipped:
        torch.save(content, best)
    else:
        best.write_bytes(pickle.dumps(content))
    line = refusal(load, best)
    assert not made.exists()
    if zipped:
        assert f"refused, it contains code ({os.mkdir.__module__}.mkdir), not just tensors and plain values" in line
        torch.load(best, weights_only=False)
        assert made.exists()  # an unsafe load runs the code


@pytest.mark.parametrize("kept", [0, 1, 2, 4, 30, 100, 500, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, -500, -100, -22, -1])
@pytest.mark.parametrize("load", [read_checkpoint, load_model])
def test_a_truncated_checkpoint_is_refused(best: Path, intact: bytes, load: Callable, kept: float) -> None:
    best.write_bytes(intact[: int(kept * len(intact)) if isinstance(kept, float) else kept])
    assert "damaged; make it again" in refusal(load, best)


def test_changed_bytes_are_harmless_or_refused_in_one_line(best: Path, intact: bytes) -> None:
    with zipfile.ZipFile(best) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    start = intact.index(pickled)
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(intact)
        for _ in range(rng.choice((1, 2, 5))):
            damaged[start + rng.randrange(len(pickled))] = rng.randrange(256)
        best.write_bytes(damaged)
        try:
            load_model(best)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{best}: ") and "\n" not in str(error)
    assert refused > 200


def foreign_files(folder: Path, model: GPTModel) -> dict[str, Callable[[Path], object]]:
    """Functions that write files which are not checkpoints of ours."""

    def archive(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("readme.txt", "no tensors here")

    return {
        "noise": lambda path: path.write_bytes(random.Random(0).randbytes(5000)),
        "text": lambda path: path.write_text("To be, or not to be\n" * 50, encoding="utf-8"),
        "zeros": lambda path: path.write_bytes(bytes(5000)),
        "archive": archive,
        "a state dict": lambda path: torch.save(model.state_dict(), path),
        "a list": lambda path: torch.save([1, 2, 3], path),
        "a tensor": lambda path: torch.save(torch.zeros(3), path),
        "another project's": lambda path: torch.save({"model": model.state_dict(), "config": CONFIG}, path),
        "a later format": lambda path: torch.save({"format": "gpt2-pipeline 99", "model": {}}, path),
    }


@pytest.mark.parametrize("kind", list(foreign_files(Path(), new_model())))
@pytest.mark.parametrize("load", [read_checkpoint, load_model, lambda path: load_checkpoint(path, new_model())])
def test_other_files_are_refused(best: Path, model: GPTModel, kind: str, load: Callable) -> None:
    foreign_files(best.parent, model)[kind](best)
    if load is load_model and kind in ("a state dict", "another project's"):
        assert same_weights(load_model(best)[0], model)
        return
    if kind == "archive":
        with pytest.raises(ValueError, match="best_model.pt: this is a zip archive; unpack it, and pass the folder"):
            load(best)
        return
    reason = "a checkpoint of another ver" if kind == "a later format" else "not a checkpoint of this project"
    assert f": {reason}" in refusal(load, best)


def test_an_empty_folder_is_refused(best: Path) -> None:
    best.unlink()
    with pytest.raises(
        FileNotFoundError, match=f"a folder without {BEST} or .* config.json; make one with python instr"
    ):
        load_model(best.parent)
    with pytest.raises(FileNotFoundError, match="no such checkpoint; make it with one of the training scripts"):
        read_checkpoint(best.parent)


def test_a_missing_file_is_named_with_the_command_to_make_it(best: Path) -> None:
    latest = best.with_name(LATEST)
    for load in (load_model, read_checkpoint):
        with pytest.raises(FileNotFoundError) as missing:
            load(latest)
        reason = "no such checkpoint; make it with python instruction_tune.py, or pass another path"
        assert str(missing.value) == f"{latest}: {reason}"


def test_a_file_without_read_permission_is_not_called_damaged(best: Path, monkeypatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(best))

    monkeypatch.setattr(torch, "load", deny)
    with pytest.raises(PermissionError, match="Permission denied: .*best_model.pt"):
        load_model(best)


def rewrite(best: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The valid checkpoint with a change to its content, saved with the right digests."""
    content = torch.load(best, weights_only=True)
    change(content)
    save_checkpoint(best, content)
    return best


def without_weight(content: dict[str, Any]) -> None:
    del content["model"]["h.1.ln_2.bias"]


WRONG_TENSORS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (without_weight, "missing tensor h.1.ln_2.bias"),
    (lambda c: c["model"].update(lm_head=torch.zeros(3)), "unknown tensor lm_head"),
    (lambda c: c["model"].update({"lm_head": torch.zeros(3), 7: torch.zeros(3)}), "unknown tensor 7"),
    (
        lambda c: c["model"].update({"ln_f.bias": torch.zeros(63)}),
        "ln_f.bias is torch.float32 (63,), expected float (64,)",
    ),
    (
        lambda c: c["model"].update({"ln_f.bias": torch.zeros(64, dtype=torch.int64)}),
        "ln_f.bias is torch.int64 (64,), expected float (64,)",
    ),
    (lambda c: c["model"].update({"ln_f.bias": [0.0] * 64}), "ln_f.bias is list, expected float (64,)"),
    (lambda c: c["model"]["wpe.weight"].view(-1)[5].fill_(float("nan")), "wpe.weight has values that are not finite"),
    (lambda c: c["model"]["ln_f.bias"][-1:].fill_(-float("inf")), "ln_f.bias has values that are not finite"),
    (lambda c: c.update(model=[1, 2]), "contains no model"),
    (lambda c: c.pop("model"), "contains no model"),
]


@pytest.mark.parametrize(("change", "reason"), WRONG_TENSORS, ids=[reason for _, reason in WRONG_TENSORS])
def test_weights_that_do_not_fit_the_model_are_refused(best: Path, change: Callable, reason: str) -> None:
    rewrite(best, change)
    assert reason in refusal(load_model, best)
    model = new_model(3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError) as refused:
        load_checkpoint(best, model)
    assert str(refused.value).startswith(f"{best}: {reason}; ") and "\n" not in str(refused.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        ("vocab_size", 10**12, "wte.weight is torch.float32 (61, 64), expected float (1000000000000, 64)"),
        ("context_length", 10**12, "wpe.weight is torch.float32 (16, 64), expected float (1000000000000, 64)"),
        ("d_ff", 10**12, "h.0.mlp.c_fc.weight is torch.float32 (256, 64), expected float (1000000000000, 64)"),
        ("vocab_size", 10**18, "model config: impossible sizes ("),
        ("vocab_size", 10**30, "model config: impossible sizes ("),
        ("n_layers", 10**9, "model config: 1000000000 layers, but only 28 tensors"),
        ("n_layers", 3, "missing tensor h.2.attn.c_attn.bias"),
        ("n_heads", 7, "model config: n_heads must divide d_model, got d_model 64 and n_heads 7"),
        ("vocab_size", "61", "model config: vocab_size must be a whole number of at least 1, got '61'"),
        ("d_model", None, "model config: d_model must be a whole number of at least 1, got None"),
        ("n_layers", 2.0, "model config: n_layers must be a whole number of at least 1, got 2.0"),
        ("n_layers", torch.zeros(2, 2), "model config: n_layers must be a whole number of at least 1, got tensor("),
        ("dropout", float("nan"), "model config: dropout must be in [0, 1), got nan"),
        pytest.param("dropout", 10**400, "model config: dropout must be in [0, 1), got 1000", id="dropout-10**400"),
        ("n_kv_heads", 1, "model config: unknown key 'n_kv_heads'"),
        (3, 1, "model config: unknown key 3"),
    ],
)
def test_a_bogus_config_is_refused_before_memory_is_allocated(
    best: Path, entry: object, value: object, reason: str
) -> None:
    assert reason in refusal(load_model, rewrite(best, lambda content: content["config"].update({entry: value})))


@pytest.mark.parametrize("config", [None, [1], "tiny", {}])
def test_a_checkpoint_without_a_config_is_refused(best: Path, config: object) -> None:
    line = refusal(load_model, rewrite(best, lambda content: content.update(config=config)))
    assert ("missing context_length" if config == {} else "contains no model") in line


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_dtypes_become_float32(best: Path, model: GPTModel, dtype: torch.dtype) -> None:
    rewrite(best, lambda content: content.update(model={k: v.to(dtype) for k, v in content["model"].items()}))
    loaded, _ = load_model(best)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded.wte.weight, model.wte.weight, atol=1e-2, rtol=1e-2)


# --- Hugging Face files and folders


def hugging_face(model: GPTModel) -> dict[str, torch.Tensor]:
    """The model's weights as Hugging Face stores GPT-2, with transposed matrices."""
    transposed = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {k: (v.t() if k.endswith(transposed) else v).contiguous() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("name", ["", "model.safetensors", "weights.safetensors", "pytorch_model.bin"])
def test_hugging_face_folders_and_weights_files_are_loaded(tmp_path: Path, model: GPTModel, name: str) -> None:
    config = {"model_type": "gpt2", "vocab_size": 61, "n_positions": 16, "n_embd": 64, "n_head": 1, "n_layer": 2}
    if not name:  # the folder
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if name.endswith(".bin"):
        torch.save(hugging_face(model), tmp_path / name)
    else:
        save_file(hugging_face(model), tmp_path / (name or "model.safetensors"))
    loaded, metadata = load_model(tmp_path / name)
    assert same_weights(loaded, model)
    assert not loaded.training
    assert (metadata["stage"], metadata["template"], metadata["tokenizer"]) == ("pretrained", None, None)
    assert metadata["config"] == asdict(loaded.config)
    base = load_base(str(tmp_path / name), ORDER)
    assert base.encoding is load_gpt2_encoding()
    assert same_weights(base.model, model)
    assert base.parent["path"] == str(tmp_path / name)
    assert base.parent["weights_sha256"] == weights_sha256(model.state_dict())


def test_sizes_are_read_without_the_weights(tmp_path: Path, model: GPTModel) -> None:
    save_checkpoint(tmp_path / "ours.pt", {**description(model), "model": {}})
    assert saved_config(tmp_path / "ours.pt") == model.config
    theirs = hugging_face_folder(tmp_path, vocab_size=260)
    for weights in tmp_path.glob("*.safetensors"):
        weights.unlink()
    assert saved_config(tmp_path) == theirs.config
    (tmp_path / "config.json").write_text("{")
    assert saved_config(tmp_path) is saved_config(tmp_path / "missing") is None


def hugging_face_folder(folder: Path, vocab_size: int) -> GPTModel:
    model = new_model(vocab_size=vocab_size)
    config = {"model_type": "gpt2", "vocab_size": vocab_size, "n_positions": 16, "n_embd": 64, "n_head": 1}
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 2, "eos_token_id": 0}), encoding="utf-8")
    save_file(hugging_face(model), folder / "model.safetensors")
    return model


def test_a_folder_with_its_own_vocabulary_is_read_with_it(tmp_path: Path) -> None:
    hugging_face_folder(tmp_path, vocab_size=260)
    spellings = ["<|endoftext|>", *printable_bytes(), "th"]
    (tmp_path / "vocab.json").write_text(json.dumps({text: i for i, text in enumerate(spellings)}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\n", encoding="utf-8")
    base = load_base(str(tmp_path))
    assert base.encoding.encode_ordinary("the") == [257, spellings.index("e")]
    save_checkpoint(tmp_path / "copy.pt", {**base.metadata, "model": base.model.state_dict()})
    assert describe(load_base(str(tmp_path / "copy.pt")).encoding) == describe(base.encoding)
    (tmp_path / "merges.txt").write_text("t z\n", encoding="utf-8")
    with pytest.raises(ValueError, match="vocab.json: this tokenizer cannot be used"):
        load_model(tmp_path)


def test_many_more_ids_than_the_tokenizer_has_are_refused(tmp_path: Path) -> None:
    hugging_face_folder(tmp_path, vocab_size=50257 + 128)
    with pytest.raises(
        ValueError, match="has 50385 token ids and GPT-2's tokenizer has 50257: it was trained with ano"
    ):
        load_model(tmp_path)


def test_a_folder_of_ours_means_its_best_model(best: Path, model: GPTModel) -> None:
    assert same_weights(load_model(best.parent)[0], model)
    base = load_base(str(best.parent), ORDER)
    assert base.path == best
    assert base.parent["path"] == str(best)
    assert [ancestor["path"] for ancestor in base.parent["ancestors"]] == ["checkpoints/a.pt"]
    best.with_name("config.json").write_text("{}", encoding="utf-8")
    assert same_weights(load_model(str(best.parent))[0], model)


# --- load_checkpoint


def test_load_checkpoint_loads_weights_and_returns_the_rest(best: Path, model: GPTModel) -> None:
    other = new_model(5)
    rest = load_checkpoint(str(best), other)
    assert same_weights(other, model)
    assert (rest["epoch"], rest["step"], rest["train_loss"], rest["val_loss"]) == (2, 30, 1.5, None)
    assert "model" not in rest and rest["stage"] == "sft"
    assert main.load_checkpoint is load_checkpoint


def test_converted_weights_have_epoch_0(best: Path) -> None:
    kept = ("format", "config", "model", "stage")
    rewrite(best, lambda content: [content.pop(key) for key in list(content) if key not in kept])
    rest = load_checkpoint(best, new_model())
    assert (rest["epoch"], rest["step"], rest["train_loss"], rest["val_loss"]) == (0, 0, None, None)


def train_step(model: GPTModel, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(IDS).square().mean().backward()
    optimizer.step()


def test_optimizer_resumes_exactly(tmp_path: Path) -> None:
    model = new_model()
    optimizer = make_adamw(model, max_lr=0.01, weight_decay=0.1)
    train_step(model, optimizer)
    path = tmp_path / LATEST
    save_checkpoint(path, {**description(model), "optimizer": optimizer.state_dict()})
    train_step(model, optimizer)
    resumed = new_model(9)
    other = make_adamw(resumed, max_lr=0.5, weight_decay=0.0)
    rest = load_checkpoint(path, resumed, other)
    assert "optimizer" not in rest
    train_step(resumed, other)
    assert same_weights(resumed, model)


def test_best_model_without_optimizer_state_points_to_latest(best: Path) -> None:
    model = new_model(4)
    with pytest.raises(ValueError, match="best_model.pt: contains no optimizer state; pass the latest_model.pt next"):
        load_checkpoint(best, model, make_adamw(model, max_lr=0.1, weight_decay=0.1))
    assert same_weights(model, new_model(4))


@pytest.mark.parametrize(
    "state", [None, "text", {}, {"state": {}, "param_groups": [{}]}, {"state": 3, "param_groups": 3}]
)
def test_an_optimizer_state_that_does_not_fit_changes_nothing(best: Path, state: object) -> None:
    model = new_model(4)
    if state is None:  # a valid state, but of two parameter groups instead of one
        optimizer = torch.optim.AdamW(model.parameters())
        state = make_adamw(model, max_lr=0.1, weight_decay=0.1).state_dict()
    else:
        optimizer = make_adamw(model, max_lr=0.1, weight_decay=0.1)
    rewrite(best, lambda content: content.update(optimizer=state))
    before = str(optimizer.state_dict())
    with pytest.raises(ValueError) as refused:
        load_checkpoint(best, model, optimizer)
    assert str(refused.value).startswith(f"{best}: its state does not fit the optimizer (")
    assert "\n" not in str(refused.value)
    assert same_weights(model, new_model(4))
    assert str(optimizer.state_dict()) == before


def test_a_model_of_another_size_is_not_called_a_damaged_file(best: Path) -> None:
    with pytest.raises(ValueError) as refused:
        load_checkpoint(best, new_model(vocab_size=50))
    assert str(refused.value) == (
        f"{best}: wte.weight is torch.float32 (61, 64), expected float (50, 64); "
        "src.checkpoint.load_model returns a model of the right size"
    )


# --- find a model


@pytest.fixture
def make_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that creates the files of models, by name, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            path, _ = STAGE_OUTPUTS[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return make


def test_auto_takes_the_first_model_that_exists(make_models: Callable[..., None]) -> None:
    make_models("scratch", "pretrained")
    assert find_model("auto", ORDER) == (STAGE_OUTPUTS["scratch"][0], "best available, no dpo or sft model yet")
    make_models("sft")
    assert find_model("auto", ORDER) == (STAGE_OUTPUTS["sft"][0], "best available, no dpo model yet")
    make_models("dpo")
    assert find_model("auto", ORDER) == (STAGE_OUTPUTS["dpo"][0], "best available")


def test_a_model_is_found_by_name_or_path(make_models: Callable[..., None], best: Path) -> None:
    make_models("dpo", "scratch")
    assert find_model("scratch", ORDER) == (STAGE_OUTPUTS["scratch"][0], "scratch, as requested")
    assert find_model(str(best), ORDER) == (best, "as requested")
    assert find_model(str(best.parent), ORDER) == (best, "as requested")


@pytest.mark.parametrize(("name", "command"), [(name, command) for name, (_, command) in STAGE_OUTPUTS.items()])
def test_a_missing_model_is_named_with_the_command_to_make_it(make_models, name: str, command: str) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        find_model(name, ORDER)
    assert str(missing.value) == f"{STAGE_OUTPUTS[name][0]}: not found in {Path.cwd()}; make it with {command}"


def test_names_may_be_in_any_case(make_models: Callable[..., None]) -> None:
    make_models("dpo")
    assert find_model("DPO", ORDER) == (STAGE_OUTPUTS["dpo"][0], "dpo, as requested")
    assert find_model("Auto", ORDER)[0] == STAGE_OUTPUTS["dpo"][0]


def test_models_next_to_the_scripts_are_a_second_choice(make_models, tmp_path: Path, monkeypatch) -> None:
    other = tmp_path / "project"
    monkeypatch.setattr(stages, "_scripts_folder", lambda: other)
    with pytest.raises(FileNotFoundError) as missing:
        find_model("dpo", ORDER, beside_scripts=True)
    assert f"not found in {Path.cwd()} or in {other}; make it with python dpo_train.py" in str(missing.value)
    there = other / STAGE_OUTPUTS["sft"][0]
    there.parent.mkdir(parents=True)
    there.touch()
    assert find_model("auto", ORDER, beside_scripts=True) == (there, "best available, no dpo model yet")
    with pytest.raises(FileNotFoundError):
        find_model("auto", ORDER)
    make_models("scratch")
    assert find_model("auto", ORDER, beside_scripts=True)[0] == STAGE_OUTPUTS["scratch"][0]


def test_auto_without_any_model_names_the_first_command(make_models) -> None:
    with pytest.raises(FileNotFoundError, match="not found in .*; make it with python main.py, or pass a path"):
        find_model("auto", ORDER)
    with pytest.raises(FileNotFoundError, match="make it with python instruction_tune.py, or pass a path"):
        find_model("auto", ("sft",))


@pytest.mark.parametrize("name", ["scratch", "auto"])
def test_a_model_in_the_former_folder_is_not_found_but_named(make_models, name: str) -> None:
    former = Path("checkpoints/pretrained/best_model.pt")
    former.parent.mkdir(parents=True)
    former.touch()
    with pytest.raises(FileNotFoundError) as missing:
        find_model(name, ORDER)
    found = f"{STAGE_OUTPUTS['scratch'][0]}: not found, but {former} exists"
    assert str(missing.value).startswith(f"{found}; rename {former.parent} to {Path('checkpoints/scratch')}")
    former.parent.rename("checkpoints/scratch")
    assert find_model(name, ORDER)[0] == STAGE_OUTPUTS["scratch"][0]


@pytest.mark.parametrize(("name", "shown"), [("elsewhere.pt", "elsewhere.pt"), ("", "''")])
def test_a_path_that_does_not_exist_is_refused(make_models, name: str, shown: str) -> None:
    where = f" in {Path.cwd()}" if name else ""
    known = f"{', '.join(ORDER)}, a checkpoint, a Hugging Face directory or a weights file"
    expected = f"{shown}: no such file{where}; pass {known}"
    with pytest.raises(FileNotFoundError) as missing:
        find_model(name, ORDER)
    assert str(missing.value) == expected


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("checkpoints/dpo_aligned/best_model.pt", "python dpo_train.py"),
        ("elsewhere/dpo_aligned/latest_model.pt", "python dpo_train.py"),
        ("checkpoints/instruction_tuned/best_model.pt", "python instruction_tune.py"),
        ("checkpoints/gpt2_shakespeare/latest_model.pt", "python finetune_gpt2.py"),
        ("checkpoints/gpt2_pretrained.pt", "python finetune_gpt2.py"),
        ("checkpoints/scratch/best_model.pt", "python main.py"),
        ("checkpoints/mine.pt", "one of the training scripts"),
        ("best_model.pt", "one of the training scripts"),
    ],
)
def test_the_producing_command_follows_from_the_folder(path: str, command: str) -> None:
    assert producing_command(Path(path)) == command


def test_load_base_loads_the_tokenizer_of_the_checkpoint(best: Path) -> None:
    assert describe(load_base(str(best), ORDER).encoding) == TOKENIZER


def test_load_base_names_the_file_of_a_damaged_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / BEST
    save_checkpoint(path, {**description(new_model()), "tokenizer": {**TOKENIZER, "fingerprint": "0"}})
    with pytest.raises(ValueError) as refused:
        load_base(str(path), ORDER)
    assert str(refused.value).startswith(f"{path}: the tokenizer in this checkpoint is damaged: ")


def test_load_model_maps_the_weights_into_memory(best: Path, monkeypatch) -> None:
    seen = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (seen.append(k), load(*a, **k))[1])
    load_model(best)
    assert seen == [{"map_location": "cpu", "weights_only": True, "mmap": os.name != "nt"}]


def test_a_folder_without_a_tokenizer_is_read_as_gpt2s_with_a_note(tmp_path: Path, capsys) -> None:
    hugging_face_folder(tmp_path, vocab_size=50257)
    assert load_base(str(tmp_path)).encoding is load_gpt2_encoding()
    assert capsys.readouterr().err == f"{tmp_path} has no tokenizer files: assuming GPT-2's\n"
