"""Weights in Hugging Face's formats give transformers' logits, and every invalid file is refused by name."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import close_session
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from src.model import load_gpt2 as load_gpt2_module
from src.model.gpt import GPT_CONFIGS, GPTConfig
from src.model.load_gpt2 import config_from_hugging_face, load_gpt2, state_dict_from_hugging_face
from tests.fakes_hub import FakeHub, point_client_at

SIZES: dict[str, Any] = {"vocab_size": 61, "n_positions": 16, "n_embd": 64, "n_head": 1, "n_layer": 2}
IDS = torch.tensor([[1, 60, 5, 5, 0, 17, 33], [2, 4, 8, 16, 32, 59, 3]])


def reference(**changes: Any) -> GPT2LMHeadModel:
    """transformers' model with random weights and biases: biases of 0 would hide a lost tensor."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**{**SIZES, "bos_token_id": 0, "eos_token_id": 0, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def assert_same_logits(path: Path | str, expected: GPT2LMHeadModel) -> None:
    model = load_gpt2(path)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), expected(IDS).logits, atol=1e-5, rtol=1e-5)
        change = expected(IDS.flip(1)).logits - expected(IDS).logits
    assert change.abs().max() > 0.1  # the comparison can fail


@pytest.fixture(scope="module")
def hf_model() -> GPT2LMHeadModel:
    return reference()


@pytest.fixture
def folder(hf_model: GPT2LMHeadModel, tmp_path: Path) -> Path:
    hf_model.save_pretrained(tmp_path)
    return tmp_path


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def test_loaded_weights_give_the_same_logits(folder: Path, hf_model: GPT2LMHeadModel) -> None:
    assert_same_logits(folder, hf_model)


def test_a_loaded_model_is_ready_to_use(folder: Path) -> None:
    model = load_gpt2(str(folder))
    assert not model.training
    assert model.config.dropout == 0.0
    assert {(p.dtype, p.device.type, p.requires_grad) for p in model.parameters()} == {(torch.float32, "cpu", True)}
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_a_loaded_model_does_not_depend_on_its_file(folder: Path, hf_model: GPT2LMHeadModel) -> None:
    model = load_gpt2(folder)
    expected = model(IDS)
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(b"\0" * os.path.getsize(folder / "model.safetensors"))
    torch.testing.assert_close(model(IDS), expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    "prefix", ["", "transformer.", "module.transformer.", "_orig_mod.", "module._orig_mod.transformer."]
)
def test_name_prefixes_are_ignored(folder: Path, hf_model: GPT2LMHeadModel, prefix: str) -> None:
    def rename(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[prefix + name.removeprefix("transformer.")] = tensors.pop(name)

    edit_tensors(folder, rename)
    assert_same_logits(folder, hf_model)


def test_sharded_safetensors_are_combined(hf_model: GPT2LMHeadModel, tmp_path: Path) -> None:
    hf_model.save_pretrained(tmp_path, max_shard_size="100KB")
    parts = sorted(tmp_path.glob("*.safetensors"))
    assert len(parts) > 2
    assert_same_logits(tmp_path, hf_model)
    with pytest.raises(ValueError, match=f"{parts[0].name} is a part of a model; pass its folder, "):
        load_gpt2(parts[0])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_state_dict_with_mask_buffers_is_loaded(
    hf_model: GPT2LMHeadModel, tmp_path: Path, zipped: bool
) -> None:
    hf_model.config.save_pretrained(tmp_path)
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 16, 16).tril() for i in range(2)}
    masks |= {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    state = hf_model.state_dict()
    assert "lm_head.weight" in state
    torch.save(state | masks, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert_same_logits(tmp_path, hf_model)


def test_sharded_pickles_are_combined(hf_model: GPT2LMHeadModel, tmp_path: Path) -> None:
    hf_model.config.save_pretrained(tmp_path)
    state = {name: tensor for name, tensor in hf_model.state_dict().items() if name != "lm_head.weight"}
    names = list(state)
    weight_map: dict[str, str] = {}
    for part, some in (("pytorch_model-1.bin", names[:9]), ("pytorch_model-2.bin", names[9:])):
        torch.save({name: state[name] for name in some}, tmp_path / part)
        weight_map |= dict.fromkeys(some, part)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    assert_same_logits(tmp_path, hf_model)
    torch.save({name: state[name] for name in names[8:]}, tmp_path / "pytorch_model-2.bin")
    with pytest.raises(ValueError, match=rf"pytorch_model-2\.bin: tensor {names[8]} is also in another file"):
        load_gpt2(tmp_path)
    (tmp_path / "pytorch_model-2.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"lists pytorch_model-2\.bin, which is not in its folder"):
        load_gpt2(tmp_path)


def test_a_single_file_uses_the_config_in_its_folder(hf_model: GPT2LMHeadModel, folder: Path) -> None:
    edit_config(folder, layer_norm_epsilon=0.5)
    assert load_gpt2(folder / "model.safetensors").config.layer_norm_epsilon == 0.5


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin", "weights.pt"])
def test_sizes_are_derived_from_a_file_without_a_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    expected = reference(n_embd=128, n_head=2, n_inner=96)
    state = {key: tensor for key, tensor in expected.state_dict().items() if key != "lm_head.weight"}
    save_file(state, tmp_path / name) if name.endswith(".safetensors") else torch.save(state, tmp_path / name)
    assert_same_logits(tmp_path / name, expected)
    assert "has no config.json next to it: assuming 2 layers and 2 heads" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_function": "gelu"},
        {"activation_function": "relu"},
        {"activation_function": "gelu_pytorch_tanh"},
        {"activation_function": "gelu_fast"},
        {"n_inner": 100, "n_head": 4},
        {"layer_norm_epsilon": 0.3},
    ],
    ids=str,
)
def test_config_options_change_the_logits(tmp_path: Path, changes: dict[str, Any]) -> None:
    expected = reference(**changes)
    expected.save_pretrained(tmp_path)
    assert_same_logits(tmp_path, expected)


def test_the_oldest_config_format_is_supported(folder: Path, hf_model: GPT2LMHeadModel) -> None:
    old = {"vocab_size": 61, "n_ctx": 16, "n_embd": 64, "n_head": 1, "n_layer": 2, "layer_norm_epsilon": 1e-5}
    (folder / "config.json").write_text(json.dumps(old), encoding="utf-8")
    assert_same_logits(folder, hf_model)
    (folder / "config.json").write_text(json.dumps({**old, "n_positions": 16, "n_ctx": 16}), encoding="utf-8")
    assert_same_logits(folder, hf_model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_to_fp32(folder: Path, dtype: torch.dtype) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({name: t.to(dtype) for name, t in tensors.items()}))
    expected = reference()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.copy_(parameter.to(dtype))  # rounded as in the file
    assert_same_logits(folder, expected)


def test_an_untied_head_equal_to_the_embedding_is_accepted(folder: Path, hf_model: GPT2LMHeadModel) -> None:
    edit_config(folder, tie_word_embeddings=False)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"].clone()}))
    assert_same_logits(folder, hf_model)


C_PROJ = "transformer.h.1.attn.c_proj.weight"
BAD_TENSORS: list[tuple[Callable[[dict[str, Tensor]], object], str]] = [
    (lambda t: t.pop(C_PROJ), r"tensor h\.1\.attn\.c_proj\.weight is missing; the model needs 28"),
    (lambda t: [t.pop(C_PROJ), t.pop("transformer.wte.weight")], r"c_proj\.weight and 1 more are missing"),
    (lambda t: t.update({"score.weight": torch.ones(2, 64)}), r"unknown tensor score\.weight"),
    (lambda t: t.update({"transformer.h.2.ln_1.weight": torch.ones(64)}), r"unknown tensor transformer\.h\.2\.ln_1"),
    (lambda t: t.update({"wpe.weight": torch.ones(16, 64)}), r"tensor \S*wpe\.weight occurs twice"),
    (
        lambda t: t.update({"transformer.wte.weight": torch.ones(60, 64)}),
        r"tensor transformer\.wte\.weight has shape \(60, 64\); the config requires \(61, 64\)",
    ),
    (
        lambda t: t.update({"transformer.h.0.mlp.c_fc.weight": torch.ones(256, 64)}),
        r"c_fc\.weight has shape \(256, 64\); the config requires \(64, 256\)",
    ),
    (lambda t: t.update({C_PROJ: torch.ones(64, 64, dtype=torch.int8)}), r"c_proj\.weight has dtype torch\.int8"),
    (lambda t: t[C_PROJ].view(-1)[5].fill_(torch.nan), r"c_proj\.weight contains values that are not finite"),
    (lambda t: t[C_PROJ].view(-1)[5].fill_(-torch.inf), r"c_proj\.weight contains values that are not finite"),
    (lambda t: t.update({"lm_head.weight": torch.ones(61, 64)}), r"lm_head\.weight differs from wte\.weight"),
    (lambda t: t.update({"lm_head.weight": torch.ones(60, 64)}), r"lm_head\.weight differs from wte\.weight"),
]


@pytest.mark.parametrize(("change", "message"), BAD_TENSORS, ids=[message for _, message in BAD_TENSORS])
def test_an_invalid_tensor_is_refused_by_name(
    folder: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    edit_tensors(folder, change)
    with pytest.raises(ValueError, match=message) as refusal:
        load_gpt2(folder)
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; only 'gpt2' is supported"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"tie_word_embeddings": False}, r"tie_word_embeddings is false, but .* has no lm_head\.weight"),
        ({"activation_function": "silu"}, "activation_function is 'silu'; expected one of gelu_new, "),
        ({"activation_function": ["gelu"]}, r"activation_function is \['gelu'\]"),
        ({"n_embd": "64"}, "n_embd must be a whole number of at least 1, got '64'"),
        ({"n_head": True}, "n_head must be a whole number of at least 1, got True"),
        ({"n_layer": 0}, "n_layer must be a whole number of at least 1, got 0"),
        ({"n_inner": 1.5}, "n_inner must be a whole number of at least 1, got 1.5"),
        ({"vocab_size": None}, "vocab_size must be a whole number of at least 1, got None"),
        ({"n_positions": None}, "n_positions must be a whole number of at least 1, got None"),
        ({"n_head": 3}, "n_heads must divide d_model"),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon must be in"),
        ({"vocab_size": 60}, r"wte\.weight has shape \(61, 64\); the config requires \(60, 64\)"),
        ({"n_layer": 1}, r"unknown tensor transformer\.h\.1\."),
        ({"n_layer": 3}, r"h\.2\.attn\.c_attn\.bias and 11 more are missing"),
    ],
    ids=str,
)
def test_an_unsupported_config_entry_is_refused_by_name(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(ValueError, match=message) as refusal:
        load_gpt2(folder)
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"{,}", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"[1]", "contains a list"),
    ],
)
def test_an_invalid_config_file_is_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as refusal:
        load_gpt2(folder)
    assert str(folder / "config.json") in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_folder_without_a_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json not found"):
        load_gpt2(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights; expected model\.safetensors"):
        load_gpt2(folder)


@pytest.mark.parametrize("n_bytes", [0, 5, 2_000, -1])
@pytest.mark.parametrize("name", ["model.safetensors", "zipped.bin", "flat.bin"])
def test_a_truncated_file_is_refused_by_name(folder: Path, hf_model: GPT2LMHeadModel, name: str, n_bytes: int) -> None:
    if name.endswith(".bin"):
        torch.save(hf_model.state_dict(), folder / name, _use_new_zipfile_serialization=name == "zipped.bin")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:n_bytes])
    with pytest.raises(
        ValueError, match=r"is not a complete (safetensors|PyTorch weights) file.*; download it again"
    ) as refusal:
        load_gpt2(folder / name)
    assert str(folder / name) in str(refusal.value) and "\n" not in str(refusal.value)


class _Code:
    """The content of a malicious file: unpickling it creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "weights.bin"
    torch.save({"wte.weight": _Code(tmp_path / "ran")}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"would run \w+\.mkdir; not loaded, use a \.safetensors file instead"
    ) as refusal:
        load_gpt2(file)
    assert not (tmp_path / "ran").exists()
    assert "weights_only" not in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "contains a list; expected a dict of tensors"),
        ({"model": {}, "step": 3}, "entry 'model' is a dict; expected only named tensors"),
        ({0: torch.ones(1)}, "entry 0 is a Tensor; expected only named tensors"),
        ({"weight": torch.ones(1)}, "its tensors are not those of a GPT-2"),
        ({"wte.weight": torch.ones(1)}, "its tensors are not those of a GPT-2"),
        (
            {
                "wte.weight": torch.ones(9, 70),
                "wpe.weight": torch.ones(9, 70),
                "h.0.mlp.c_fc.weight": torch.ones(70, 9),
            },
            "width 70 is not a multiple of GPT-2's head size 64; add its config.json",
        ),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=message):
        load_gpt2(tmp_path / "weights.pt")


def test_a_git_lfs_pointer_is_recognised(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ValueError, match="is a Git LFS pointer, not the weights; in its folder run: git lfs pull"):
        load_gpt2(folder)


@pytest.mark.parametrize("name", ["gpt3-175B", "micro", "", "gpt2-125M", "a/b/c", "http://a.b/c"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="expected gpt2-124M, gpt2-355M, gpt2-774M, gpt2-1558M, a hub id like openai-"):
        load_gpt2(name)


@pytest.mark.parametrize(
    "path", ["weights.safetensors", "some/weights.bin", Path("some/folder"), Path("gpt2")], ids=repr
)
def test_a_missing_path_is_not_looked_up_on_the_hub(path: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match="not found; expected a Hugging Face folder or weights file"):
        load_gpt2(path)


def test_an_unknown_file_type_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json is JSON, not weights; pass its folder"):
        load_gpt2(folder / "config.json")
    (folder / "notes.txt").write_text("To be, or not to be", encoding="utf-8")
    with pytest.raises(ValueError, match=r"notes\.txt is not a weights file; expected one ending in \.safetensors, "):
        load_gpt2(folder / "notes.txt")


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("gpt2-124M", "openai-community/gpt2"),
        ("gpt2-355M", "openai-community/gpt2-medium"),
        ("gpt2-774M", "openai-community/gpt2-large"),
        ("gpt2-1558M", "openai-community/gpt2-xl"),
        ("gpt2", "openai-community/gpt2"),
        ("gpt2-xl", "openai-community/gpt2-xl"),
        ("microsoft/DialoGPT-small", "microsoft/DialoGPT-small"),
    ],
)
def test_size_names_map_to_hub_models(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, repo: str) -> None:
    downloads = []

    def download_model(repo: str, cache: str | Path | None) -> Path:
        downloads.append((repo, cache))
        return folder

    monkeypatch.setattr(load_gpt2_module, "download_model", download_model)
    load_gpt2(name, cache="some/cache")
    assert downloads == [(repo, "some/cache")]


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub({name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}) as running:
        point_client_at(running.endpoint, monkeypatch)
        yield running
    close_session()


def test_a_downloaded_model_gives_the_same_logits(server: FakeHub, hf_model: GPT2LMHeadModel, tmp_path: Path) -> None:
    model = load_gpt2(server.repo, cache=tmp_path / "cache")
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), hf_model(IDS).logits, atol=1e-5, rtol=1e-5)


def test_a_state_dict_in_memory_is_converted(hf_model: GPT2LMHeadModel) -> None:
    config = config_from_hugging_face(hf_model.config.to_dict())
    assert config == GPTConfig(vocab_size=61, context_length=16, d_model=64, n_heads=1, n_layers=2)
    theirs = hf_model.state_dict()
    ours = state_dict_from_hugging_face(theirs, config)
    assert torch.equal(ours["h.0.attn.c_attn.weight"], theirs["transformer.h.0.attn.c_attn.weight"].T)
    assert not {tensor.data_ptr() for tensor in ours.values()} & {tensor.data_ptr() for tensor in theirs.values()}


@pytest.mark.parametrize("name", ["gpt2-124M", "gpt2-1558M"])
def test_released_configs_equal_the_table_of_sizes(name: str) -> None:
    wanted = GPTConfig.of({**GPT_CONFIGS[name], "dropout": 0.0})
    released = GPT2Config(n_embd=wanted.d_model, n_head=wanted.n_heads, n_layer=wanted.n_layers).to_dict()
    assert config_from_hugging_face(released) == wanted
