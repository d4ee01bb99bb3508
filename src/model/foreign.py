"""Names for files and folders that hold no weights this project can read, and the way to convert them.

A file is recognised by its first bytes, because people rename files and browsers save error pages as weights.
"""

import re
import zipfile
from pathlib import Path

CONFIG_FILE = "config.json"  # Hugging Face's name for the config of a model
ADAPTER_CONFIG = "adapter_config.json"  # PEFT's name for the config of an adapter
_SAVE = ".save_pretrained('FOLDER'), then pass FOLDER"
_LOAD = "AutoModelForCausalLM.from_pretrained"
_ARCHIVE = "unpack it, and pass the folder or the weights file in it"
_TENSORFLOW = (
    "convert it with transformers before version 5: {load}({folder!r}, from_tf=True){save}; "
    "OpenAI's models are on the hub: --model gpt2-124M"
)
_LLM_C = b"\xc6\xd74\x01"  # 20240326, the magic number of its model files

_FIRST_BYTES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights; in its folder run: git lfs pull"),
    (b"\x89HDF\r\n", f"a Keras or TensorFlow file (HDF5); {_TENSORFLOW}"),
    (_LLM_C, "a model of llm.c; pass the Hugging Face model that it was made from, or export it as one with llm.c"),
    (b"\x93NUMPY", "a NumPy array, not a model"),
    (b"\x1f\x8b", f"compressed (gzip); {_ARCHIVE}"),
    (b"BZh", f"compressed (bzip2); {_ARCHIVE}"),
    (b"\xfd7zXZ", f"compressed (xz); {_ARCHIVE}"),
    (b"7z\xbc\xaf", f"a 7z archive; {_ARCHIVE}"),
    (b"Rar!", f"a RAR archive; {_ARCHIVE}"),
    (b"%PDF", "a PDF document, not a model"),
)
_WEB_PAGE = "a web page, not the weights; download the file itself, with /resolve/ instead of /blob/ in its address"


def foreign_file(path: Path) -> str | None:
    """What a file is and how to convert it, or None if it may hold weights."""
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return _WEB_PAGE
    known = next((what for first, what in _FIRST_BYTES if start.startswith(first)), None)
    if known:
        return known.format(folder=str(path.parent), name=path.name, load=_LOAD, save=_SAVE)
    if start.startswith(b"PK"):
        return _foreign_zip(path)
    if start[257:262] == b"ustar":
        return f"a tar archive; {_ARCHIVE}"
    if path.suffix == ".onnx":
        return "an ONNX model, whose weights cannot be read back; pass the Hugging Face model that it was made from"
    if path.suffix == ".msgpack":
        return f"a Flax model; convert it with transformers before version 5: {_LOAD}(..., from_flax=True){_SAVE}"
    if text.startswith((b"{", b"[")):
        return "JSON, not weights; pass its folder, or the weights file itself"
    return None


def foreign_folder(folder: Path) -> str | None:
    """What a folder without weights is and how to get at them, or None if unknown."""
    if (folder / ADAPTER_CONFIG).is_file():
        return "a LoRA adapter, which changes another model; src.checkpoint.load_model merges it into that model"
    snapshots = sorted(path for path in folder.glob("snapshots/*") if path.is_dir())
    if snapshots:
        main = folder / "refs" / "main"
        commit = main.read_text(encoding="utf-8", errors="replace").strip() if main.is_file() else ""
        chosen = next((path for path in snapshots if path.name == commit), snapshots[-1])
        return f"a model in the hub's cache; pass the folder {chosen}"
    if (folder / "tf_model.h5").is_file() or (folder / "hparams.json").is_file() or any(folder.glob("*.ckpt.index")):
        return f"a TensorFlow model; {_TENSORFLOW}".format(folder=str(folder), load=_LOAD, save=_SAVE)
    if (folder / "flax_model.msgpack").is_file():
        return f"a Flax model; {_LOAD}({str(folder)!r}, from_flax=True){_SAVE} with transformers before version 5"
    for pattern, what in (("*.gguf", "GGUF"), ("*.onnx", "ONNX"), ("*.safetensors", ""), ("*.bin", ""), ("*.pt*", "")):
        if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
            if is_part(found[0]):
                return f"a folder with {found[0].name}, a part of a model; download the model's *.index.json as well"
            return f"a folder with {what or 'the file'} {found[0].name}; pass that file: {found[0]}"
    return None


def is_part(file: Path) -> bool:
    """Whether a file is one of the parts of a model, such as model-00001-of-00002.safetensors."""
    return re.search(r"-\d+-of-\d+\.", file.name) is not None


def _foreign_zip(path: Path) -> str | None:
    """A PyTorch file is a zip archive with a data.pkl. None also for a damaged archive, which PyTorch reports."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program; pass the state dict that it was made from: torch.save(model.state_dict(), ...)"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return None
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive, not a model"
    return f"a zip archive; {_ARCHIVE}"
