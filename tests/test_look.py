"""python -m src.look: the page shows the model's own attention weights and guesses, and bad input is one line."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from src.checkpoint import load_base
from src.look import MAX_TOKENS, main, observe
from src.model.generate import TextGenerator
from src.tokenizer import load_gpt2_encoding

PROMPT = "The cat </script><b>na\u00efve \u732b\n& sat."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 in Hugging Face's format."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("look") / "gpt2"
    model = GPT2LMHeadModel(GPT2Config(n_positions=80, n_embd=32, n_head=4, n_layer=2, attn_implementation="eager"))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_attention_and_states_match_transformers(folder: Path) -> None:
    ids = torch.tensor(load_gpt2_encoding().encode_ordinary(PROMPT))
    theirs = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    expected = theirs(ids[None], output_attentions=True, output_hidden_states=True)
    model = load_base(str(folder)).model
    weights, states = observe(model, ids)
    torch.testing.assert_close(weights, torch.cat(expected.attentions), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(2, 4, len(ids)))
    expected_states = torch.cat(expected.hidden_states)  # the last one is after the final LayerNorm
    torch.testing.assert_close(states[:-1], expected_states[:-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.ln_f(states[-1]), expected_states[-1], atol=1e-5, rtol=1e-5)


def look(folder: Path, out: Path, prompt: str = PROMPT) -> tuple[str, dict[str, Any]]:
    """The page, and the data in it."""
    assert main(["--model", str(folder), "--prompt", prompt, "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return page, json.loads(data)


def test_the_page_holds_the_weights_and_the_models_own_guesses(folder: Path, tmp_path: Path) -> None:
    _, data = look(folder, tmp_path / "look.html")
    base = load_base(str(folder))
    ids = base.encoding.encode_ordinary(PROMPT)
    weights, _ = observe(base.model, torch.tensor(ids))
    triangle = weights[:, :, torch.ones(len(ids), len(ids), dtype=torch.bool).tril()].flatten()
    shown = torch.tensor(list(base64.b64decode(data["attention"]))) / 255
    torch.testing.assert_close(shown, triangle, atol=0.5 / 255 + 1e-6, rtol=0)
    answer = TextGenerator(base.model, base.encoding).predict_next_token(PROMPT, top_k=5)
    assert [p for _, p in data["guesses"][-1][-1]] == pytest.approx([p for _, p in answer], abs=1e-4)
    assert len(data["guesses"]) == data["layers"] + 1 == 3 and len(data["actual"][-1]) == len(ids) - 1
    with torch.no_grad():
        probs = base.model(torch.tensor([ids]))[0].softmax(dim=-1)
    assert data["actual"][-1] == pytest.approx([float(probs[i, id_]) for i, id_ in enumerate(ids[1:])], abs=1e-4)


def test_the_page_escapes_the_prompt_and_needs_no_network(folder: Path, tmp_path: Path) -> None:
    page, data = look(folder, tmp_path / "new" / "look.html")
    assert "".join(data["tokens"]) == "The cat </script><b>na\u00efve \\xe7\\x8c\\xab\\n& sat."
    assert page.count("</script>") == 2 and "<b>" not in page
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\(", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "--prompt needs a text"),
        (["--prompt", " \n"], "--prompt needs a text"),
        (["--prompt", "Go", "--out", "page.txt"], "--out must be a file name ending in .html, got 'page.txt'"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    printed = capsys.readouterr().err
    assert left.value.code == 2 and printed.count("\n") == 1 and complaint in printed


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            lambda path: ["--prompt", "a " * MAX_TOKENS],
            ValueError,
            "has 65 tokens, and the page shows 1 to 64",
        ),
        (lambda path: ["--prompt", "Go", "--model", "absent"], FileNotFoundError, "absent: no such file"),
        (lambda path: ["--prompt", "Go", "--out", f"{path}/file/look.html"], OSError, "pass another file as --out"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    arguments: Callable[[Path], list[str]], error: type[Exception], message: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(error) as refused:
        main(["--model", str(folder), *arguments(tmp_path)])
    assert message in str(refused.value) and "\n" not in str(refused.value)
