"""A model as a GGUF file, the format of llama.cpp, and the Modelfile with which Ollama loads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from src.checkpoint import PROMPT_TEMPLATE, LoadedModel
from src.data.prompts import as_go_template, as_jinja
from src.tokenizer.byte_pair_vocabulary import end_of_text_name, vocabulary_of

Kind = Literal["f16", "q8_0"]
_BLOCK = 32  # q8_0 stores this many weights with one scale
_INSTALL = "--gguf needs the package gguf: pip install gguf"


def check_gguf(base: LoadedModel) -> None:
    """Raise ValueError if the format cannot hold the model, ModuleNotFoundError without the package."""
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_INSTALL) from error
    if base.encoding.name == "word":
        raise ValueError(
            f"{base.path}: a GGUF file holds byte pairs, and this model has a word tokenizer; leave --gguf out"
        )
    if base.model.config.activation != "gelu_tanh":
        raise ValueError(
            f"{base.path}: llama.cpp computes a GPT-2 with gelu_tanh, and this model has {base.model.config.activation}"
        )


def write_gguf(base: LoadedModel, path: Path, kind: Kind) -> None:
    """Write the file. Matrices are stored as `kind`; biases, norms and positions as float32."""
    import gguf

    writer = gguf.GGUFWriter(path, "gpt2")
    _add_settings(writer, base, kind)
    _add_tokenizer(writer, base)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, base.model.config.n_layers)
    for name, tensor in base.model.state_dict().items():
        theirs = names.get_name(f"transformer.{name}", try_suffixes=(".weight", ".bias"))
        values = tensor.detach().to(torch.float32).numpy()
        dtype = _dtype(name, values, kind)
        writer.add_tensor(theirs, gguf.quants.quantize(values, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _dtype(name: str, values: np.ndarray, kind: Kind) -> Any:
    from gguf import GGMLQuantizationType

    if values.ndim < 2 or name == "wpe.weight":
        return GGMLQuantizationType.F32
    return GGMLQuantizationType.Q8_0 if kind == "q8_0" and values.shape[1] % _BLOCK == 0 else GGMLQuantizationType.F16


def _add_settings(writer: Any, base: LoadedModel, kind: Kind) -> None:
    from gguf import LlamaFileType

    config = base.model.config
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0 if kind == "q8_0" else LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_block_count(config.n_layers)
    writer.add_head_count(config.n_heads)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    if template := base.metadata.get("template"):
        writer.add_chat_template(as_jinja(base.encoding, template, marks_answers=False))
        writer.add_string(PROMPT_TEMPLATE, template)


def _add_tokenizer(writer: Any, base: LoadedModel) -> None:
    from gguf import TokenType

    end, vocabulary = base.encoding.eot_token, vocabulary_of(base.encoding)
    assert vocabulary is not None  # see check_gguf
    kinds: Mapping[str, int] = {
        **dict.fromkeys(vocabulary.special, TokenType.CONTROL),
        **dict.fromkeys(vocabulary.added, TokenType.USER_DEFINED),
    }
    tokens = {id_: text for ids in (vocabulary.ids, vocabulary.special, vocabulary.added) for text, id_ in ids.items()}
    texts = [tokens.get(id_, f"[unused {id_}]") for id_ in range(base.model.config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(texts)
    writer.add_token_types(
        [kinds.get(text, TokenType.NORMAL if id_ in tokens else TokenType.UNUSED) for id_, text in enumerate(texts)]
    )
    writer.add_token_merges(vocabulary.spelled_merges())
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id, writer.add_pad_token_id):
        add(end)
    writer.add_add_bos_token(False)


def modelfile(base: LoadedModel, file: str) -> str:
    """The Modelfile for `ollama create`: the most likely answer, rendered with the model's prompt template."""
    end, template = end_of_text_name(base.encoding), base.metadata.get("template")
    text = as_go_template(end, template) if template else "{{ .Prompt }}"
    return (
        f'FROM ./{file}\nTEMPLATE """{text}"""\n'
        f'PARAMETER stop "{end}"\n'
        f"PARAMETER num_ctx {base.model.config.context_length}\n"
        "PARAMETER temperature 0\nPARAMETER repeat_penalty 1\n"
    )
