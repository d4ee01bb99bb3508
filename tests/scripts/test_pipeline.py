"""Each stage runs on the checkpoint of the one before, from a text to a chat, with any tokenizer."""

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

import chat
import dpo_train
import finetune_gpt2
import instruction_tune
import main
from src.checkpoint import load_model, read_checkpoint, weights_sha256
from src.data.prompts import TEMPLATE
from src.tokenizer import describe, load_encoding
from tests.scripts.commands import PRETRAIN, SHORT, TUNE, VERSE, error, exit_code, make_fresh_clone

STAGES = ("scratch", "instruction_tuned", "dpo_aligned")


@pytest.fixture(scope="module")
def all_stages(tmp_path_factory: pytest.TempPathFactory, unedited_constants: None) -> tuple[Path, list[str]]:
    """(a folder in which each stage has trained from the one before, from scratch, what each stage printed)."""
    folder, outputs = tmp_path_factory.mktemp("stages"), []
    with pytest.MonkeyPatch.context() as patch:
        make_fresh_clone(folder, patch)
        patch.setattr("src.stages._scripts_folder", lambda: folder)
        for script, argv in ((main, PRETRAIN), (instruction_tune, TUNE), (dpo_train, TUNE)):
            with redirect_stdout(io.StringIO()) as output:
                assert script.main(argv) == 0
            outputs.append(output.getvalue())
    return folder, outputs


@pytest.fixture
def trained(folder: Path, all_stages: tuple[Path, list[str]]) -> Path:
    """A fresh clone with a copy of the checkpoints of all stages."""
    shutil.copytree(all_stages[0] / "checkpoints", folder / "checkpoints")
    return folder


def test_all_stages_from_text_to_chat(
    trained: Path, all_stages: tuple[Path, list[str]], capsys: pytest.CaptureFixture
) -> None:
    pretraining, tuning, alignment = all_stages[1]
    assert "next: python instruction_tune.py" in pretraining
    assert "context 32: " in pretraining and "396,800 without the embeddings" in pretraining
    assert "checkpoints/scratch/best_model.pt, best available" in tuning
    assert "none: training loss decides the best model" in tuning
    assert "What is the capital of France?" in tuning
    assert "next: python dpo_train.py" in tuning
    assert "next: python chat.py" in alignment
    assert "| loss   0.6931 |" in alignment  # the first step: policy and reference are equal
    assert chat.main(["--prompt", "What is the capital of France?", "--max-tokens", "5", "--seed", "1"]) == 0
    assert "Model: checkpoints/dpo_aligned (best available)" in capsys.readouterr().err


def test_checkpoints_name_parent_and_template(trained: Path) -> None:
    paths = [Path("checkpoints") / stage / "best_model.pt" for stage in STAGES]
    found = [load_model(path)[1] for path in paths]
    assert [metadata["stage"] for metadata in found] == ["pretrain", "sft", "dpo"]
    assert [metadata["template"] for metadata in found] == [None, TEMPLATE, TEMPLATE]
    seen = {"facts": True, "system": True}
    assert [metadata.get("trained_with") for metadata in found] == [None, seen, seen]

    def hash_of(path: Path) -> str:
        return weights_sha256(load_model(path)[0].state_dict())

    recorded = [metadata["parent"] for metadata in found]
    assert recorded[0] is None
    for parent, path in zip(recorded[1:], paths, strict=False):
        assert (parent["path"], parent["weights_sha256"]) == (str(path), hash_of(path))
    assert [ancestor["path"] for ancestor in recorded[2]["ancestors"]] == [str(paths[0])]
    for path in paths:
        assert "optimizer" not in read_checkpoint(path)
        assert "optimizer" in read_checkpoint(path.with_name("latest_model.pt"))


def test_all_stages_have_the_words_of_the_text_and_of_the_later_examples(
    trained: Path, capsys: pytest.CaptureFixture
) -> None:
    found = [load_model(f"checkpoints/{stage}") for stage in STAGES]
    first = load_encoding(found[0][1]["tokenizer"])
    assert first.decode(first.encode_ordinary(VERSE)) == VERSE
    asked = "### Instruction:\nWhat is photosynthesis?\n\n### Response:\n"
    assert first.decode(first.encode_ordinary(asked)) == asked
    for model, metadata in found:
        assert metadata["tokenizer"] == describe(first)
        assert model.config.vocab_size == first.n_vocab < 2000
    assert chat.main(["--prompt", "What is photosynthesis?", "--max-tokens", "5", "--seed", "1"]) == 0
    answer = capsys.readouterr().out.strip()
    assert first.decode(first.encode_ordinary(answer)) == answer  # words, spaced as in print
    assert instruction_tune.main(["--show-mask"]) == 0
    assert "[[The capital of France is Paris, a city on the river Seine. <ENDOFTEXT>]]" in capsys.readouterr().out


def test_learned_byte_pairs_are_used_in_all_stages(folder: Path, capsys: pytest.CaptureFixture) -> None:
    learn = [*PRETRAIN, "--context-length", "64", "--tokenizer", "bpe", "--vocab-size", "400"]
    assert main.main(learn) == 0
    assert "vocabulary: 400 tokens, learned from the text in " in capsys.readouterr().out
    assert instruction_tune.main(TUNE) == 0
    assert dpo_train.main(TUNE) == 0
    found = [load_model(f"checkpoints/{stage}") for stage in STAGES]
    first = load_encoding(found[0][1]["tokenizer"])
    asked = "### Instruction:\nWhat is 猫, or naïveté?\n\n### Response:\n"
    assert first.decode(first.encode_ordinary(asked)) == asked
    assert len(first.encode_ordinary(VERSE)) < len(VERSE) / 2
    for model, metadata in found:
        assert metadata["tokenizer"] == describe(first)
        assert model.config.vocab_size == first.n_vocab == 400
    assert chat.main(["--prompt", "What is photosynthesis?", "--max-tokens", "5", "--seed", "1"]) == 0
    capsys.readouterr()
    # A resumed run has the tokens that it began with, even if the examples have changed since.
    Path("Data/instruction_data.json").write_text(
        json.dumps([{"instruction": "What?", "response": "xyz " * 99}]), "utf-8"
    )
    assert main.main([*learn, "--max-steps", "5"]) == 0
    output = capsys.readouterr().out
    assert "vocabulary: 400 tokens, those of the run in --out" in output
    assert "continuing the finished run at step 3 of 5" in output
    assert main.main([*learn, "--no-resume"]) == 0
    assert load_model("checkpoints/scratch")[1]["tokenizer"] != describe(first)


def test_gpt2_weights_go_through_all_stages(
    folder: Path, hugging_face_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = ["--weights", str(hugging_face_folder)]
    assert finetune_gpt2.main(["--data", "verse.txt", *weights, *SHORT]) == 0
    output = capsys.readouterr().out
    before, after = (output.index(f"{when} fine-tuning:\n{finetune_gpt2.PROMPT}") for when in ("before", "after"))
    assert before < after
    assert Path("checkpoints/gpt2_pretrained.pt").is_file()
    converted, _ = load_model("checkpoints/gpt2_pretrained.pt")
    theirs = GPT2LMHeadModel.from_pretrained(hugging_face_folder).eval()
    ids = torch.randint(50257, (1, 20))
    with torch.no_grad():
        torch.testing.assert_close(converted(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)
    assert instruction_tune.main(["--max-steps", "1"]) == 0
    output = capsys.readouterr().out
    assert "checkpoints/gpt2_shakespeare/best_model.pt" in output
    assert "validation     3 conversations" in output  # a size that is neither micro nor tiny holds some out
    assert dpo_train.main(["--max-steps", "1"]) == 0
    assert "validation     2 pairs" in capsys.readouterr().out
    assert chat.main(["--model", "pretrained", "--prompt", "Hello", "--max-tokens", "3"]) == 0
    assert chat.main(["--model", str(hugging_face_folder), "--prompt", "Hello", "--max-tokens", "3"]) == 0


def test_unknown_words_are_reported(trained: Path, capsys: pytest.CaptureFixture) -> None:
    Path("mine.json").write_text(json.dumps([{"instruction": "What is a zyzzyva?", "response": "A weevil."}]), "utf-8")
    assert instruction_tune.main(["--data", "mine.json", "--max-steps", "1", "--batch-size", "1"]) == 0
    assert "2 words are not in the model's vocabulary: zyzzyva, weevil" in capsys.readouterr().out


def test_more_steps_extend_a_finished_run(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.main([*PRETRAIN, "--max-steps", "5"]) == 0
    assert "continuing the finished run at step 3 of 5" in capsys.readouterr().out
    assert read_checkpoint(Path("checkpoints/scratch/latest_model.pt"))["step"] == 5


def test_a_changed_base_is_not_resumed(trained: Path, capsys: pytest.CaptureFixture) -> None:
    main.main([*PRETRAIN, "--seed", "5"])
    capsys.readouterr()
    assert exit_code(instruction_tune.main, *TUNE, "--max-steps", "4", "--resume") == 1
    assert "a finished run with other settings (base differs)" in error(capsys)


def test_a_base_with_an_unknown_tokenizer_is_refused(trained: Path, capsys: pytest.CaptureFixture) -> None:
    path = Path("checkpoints/scratch/best_model.pt")
    content = read_checkpoint(path)
    capsys.readouterr()
    for described, why in (
        ({"name": "pieces", "fingerprint": "abc"}, "no tokenizer 'pieces', only 'gpt2', 'word' and 'byte_pairs'"),
        ({"name": "gpt2", "fingerprint": "abc"}, "its fingerprint is"),
    ):
        torch.save({**content, "tokenizer": described}, path)
        assert exit_code(instruction_tune.main) == 1
        line = error(capsys)
        assert str(path) in line and why in line


def test_without_validation_training_loss_decides_the_best_model(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.main([*PRETRAIN, "--val-fraction", "0"]) == 0
    assert "eval      3/3 | train" in capsys.readouterr().out
    assert read_checkpoint(Path("checkpoints/scratch/best_model.pt"))["val_loss"] is None
