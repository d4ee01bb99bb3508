"""Checkpoint files: save and read them, load the model in one, and find the model that a script should start from."""

from src.checkpoint.digest import WEIGHT_SUFFIXES, file_sha256, weights_sha256
from src.checkpoint.files import FORMAT, read_checkpoint, save_checkpoint
from src.checkpoint.loaded_model import TRAINED_WITH, LoadedModel
from src.checkpoint.models import check_weights, load_base, load_checkpoint, load_model, saved_config
from src.checkpoint.other_weights import PROMPT_TEMPLATE
from src.stages import (
    BEST,
    CHECKPOINTS,
    LATEST,
    MODEL_HELP,
    MODELS,
    STAGE_OUTPUTS,
    as_argument,
    find_model,
    producing_command,
    sft_bases,
)

__all__ = [
    "BEST",
    "CHECKPOINTS",
    "FORMAT",
    "LATEST",
    "MODELS",
    "MODEL_HELP",
    "PROMPT_TEMPLATE",
    "STAGE_OUTPUTS",
    "TRAINED_WITH",
    "WEIGHT_SUFFIXES",
    "LoadedModel",
    "as_argument",
    "check_weights",
    "file_sha256",
    "find_model",
    "load_base",
    "load_checkpoint",
    "load_model",
    "producing_command",
    "read_checkpoint",
    "save_checkpoint",
    "saved_config",
    "sft_bases",
    "weights_sha256",
]
