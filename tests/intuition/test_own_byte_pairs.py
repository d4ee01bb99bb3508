"""The byte pairs of a checkpoint: its merges, and a sentence cut by three tokenizers."""

from dataclasses import asdict
from pathlib import Path

import pytest

from src.checkpoint import save_checkpoint
from src.intuition.__main__ import main
from src.model.gpt import GPTModel
from src.tokenizer import Encoding, describe, learn_byte_pairs, load_gpt2_encoding

TEXT = "Enter FALSTAFF. Enter FALSTAFF. naïve naïve\n\n\tExit.\n\n\tExit. "
SENTENCE = "Enter FALSTAFF: a naïve 猫\t."


def checkpoint(folder: Path, encoding: Encoding) -> str:
    model = GPTModel({"vocab_size": encoding.n_vocab, "context_length": 8, "d_model": 4, "n_heads": 1, "n_layers": 1})
    content = {"stage": "pretrain", "config": asdict(model.config), "model": model.state_dict(), "template": None}
    save_checkpoint(folder / "best_model.pt", {**content, "tokenizer": describe(encoding)})
    return str(folder / "best_model.pt")


def test_merges_and_a_sentence_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoding = learn_byte_pairs([TEXT], 300)
    path = checkpoint(tmp_path, encoding)
    assert main(["byte-pairs", "--checkpoint", path, "--text", SENTENCE]) == 0
    shown = capsys.readouterr().out
    first, second = (encoding.decode_single_token_bytes(id_).decode("utf-8", "backslashreplace") for id_ in (256, 257))
    assert f"\n  |{first}|{second}|" in shown
    assert "|FALSTAFF" in shown.partition("special about")[2]
    cut = shown.partition("How is a sentence cut?")[2]
    assert (
        f"GPT-2's: {len(load_gpt2_encoding().encode_ordinary('Enter FALSTAFF: a naïve 猫' + chr(9) + '.'))} tokens"
        in cut
    )
    assert "words: 7 tokens\n  |Enter|FALSTAFF|:|a|naïve|猫|.|\n" in cut
    own = cut.partition("your own: ")[2]
    assert "| FALSTAFF|" in own and "\\xe7|\\x8c|\\xab|" in own and "|\\t|" in own
    assert all(len(line) <= 80 and line == line.rstrip() for line in shown.splitlines()[4:])  # line 4 has the path


def test_another_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, load_gpt2_encoding())
    with pytest.raises(ValueError) as refused:
        main(["byte-pairs", "--checkpoint", path])
    assert str(refused.value) == (
        f"{path} has the gpt2 tokenizer, not byte pairs of its own; make one that has: python main.py --tokenizer bpe"
    )
