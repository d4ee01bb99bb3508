"""The files of a Hugging Face model: which of them hold the weights, and which ones to download from the hub."""

import re
from pathlib import Path

from src.common.atomic_file import atomic_write
from src.common.hub import HubRepository, RemoteFile, download_files, file_info
from src.common.json_file import read_json_object
from src.model.foreign import CONFIG_FILE, foreign_folder

# In order of preference. An index lists the files that a large model is split into.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# They say what the ids mean. Not every model has all of them.
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
ALTERNATIVES = (
    "three alternatives: --weights PATH (a Hugging Face folder or weights file that you have), "
    "HF_ENDPOINT=https://MIRROR (another server), or python main.py (train from scratch, nothing to download)"
)


def find_weight_files(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face folder, in the most preferred format.

    Raises FileNotFoundError if there are none or a part is missing, ValueError for an unreadable index.
    """
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix != ".json":
            return [path]
        parts = [folder / part for part in _parts(path)]
        for part in parts:
            if not part.is_file():
                raise FileNotFoundError(f"{path} lists {part.name}, which is not in its folder; download it as well")
        return parts
    if foreign := foreign_folder(folder):
        raise FileNotFoundError(f"{folder} is {foreign}")
    raise FileNotFoundError(f"{folder} has no weights; expected {WEIGHT_FILES[0]}, {WEIGHT_FILES[2]} or an index")


def download_model(repo: str, cache: str | Path | None = None) -> Path:
    """The folder with config.json, weights and vocabulary of the hub model `repo`, downloaded unless cached.

    A cached model needs no network. A download is announced on stderr with its size, and resumes an earlier partial
    one. A file enters the cache only if its SHA-256 equals the hub's. cache: the cache folder (None: huggingface_hub's
    own). Raises OSError that names the alternatives to a download, and ValueError for an unreadable index.
    """
    from huggingface_hub import constants

    repository = HubRepository(repo, Path(cache or constants.HF_HUB_CACHE).expanduser(), ALTERNATIVES)
    return _cached(repository) or _fetch_model(repository)


def _cached(repository: HubRepository) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repository.name, CONFIG_FILE, cache_dir=repository.cache)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        find_weight_files(folder)
    except FileNotFoundError:
        return None
    return folder


def _fetch_model(repository: HubRepository) -> Path:
    from huggingface_hub import constants

    config = file_info(repository, CONFIG_FILE)
    if config is None:
        raise FileNotFoundError(f"{constants.ENDPOINT} has no {CONFIG_FILE} for {repository.name}; {ALTERNATIVES}")
    snapshot = repository.folder / "snapshots" / config.commit
    weights = _first_weights(repository)
    files = [weights]
    if weights.name.endswith(".json"):
        download_files(repository, [weights], snapshot)
        files = [_part_info(repository, name) for name in _parts(snapshot / weights.name)]
    vocabulary = filter(None, (file_info(repository, name) for name in TOKENIZER_FILES))
    download_files(repository, [config, *files, *vocabulary], snapshot)
    with atomic_write(repository.folder / "refs" / "main") as file:  # last: this marks the model as complete
        file.write(config.commit.encode("utf-8"))
    return snapshot


def _first_weights(repository: HubRepository) -> RemoteFile:
    for name in WEIGHT_FILES:
        found = file_info(repository, name)
        if found is not None:
            return found
    raise FileNotFoundError(f"{repository.name} has neither {WEIGHT_FILES[0]} nor {WEIGHT_FILES[2]}; {ALTERNATIVES}")


def _part_info(repository: HubRepository, name: str) -> RemoteFile:
    found = file_info(repository, name)
    if found is None:
        raise FileNotFoundError(f"{repository.name} lacks {name}, which its own index lists; {ALTERNATIVES}")
    return found


def _parts(index: Path) -> list[str]:
    """The file names listed in an index. Raises ValueError unless all are plain names of weight files."""
    try:
        names = read_json_object(index)["weight_map"].values()
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{index} is not an index of weights (JSON with a weight_map); delete it and download it again"
        ) from error
    unique = sorted({str(name) for name in names})
    for name in unique:
        if not re.fullmatch(r"\w[\w.-]*\.(safetensors|bin)", name):
            raise ValueError(f"{index} lists {name!r}; expected file names ending in .safetensors or .bin")
    return unique
