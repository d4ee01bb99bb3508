"""The scripts run end to end, each stage on the checkpoint of the one before, with models that train in a moment."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import chat
import dpo_train
import finetune_gpt2
import instruction_tune
import main
from src.checkpoint import load_model, read_checkpoint, weights_sha256
from src.data.prompts import TEMPLATE
from src.program import run_script
from src.tokenizer import describe, encoding_fingerprint, load_encoding, load_gpt2_encoding
from src.training import parallel

REPOSITORY = Path(__file__).parent.parent
SHORT = ["--max-steps", "3", "--batch-size", "2", "--context-length", "32", "--eval-every", "3", "--device", "cpu"]
TUNE = ["--batch-size", "4", "--max-steps", "3"]
PRETRAIN = ["--data", "verse.txt", "--model", "micro", "--tokenizer", "gpt2", *SHORT]
VERSE = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unedited_constants: None) -> Path:
    make_fresh_clone(tmp_path, monkeypatch)
    return tmp_path


def make_fresh_clone(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """The current folder looks like a fresh clone to the scripts: the shipped data, a short text, no checkpoints."""
    shutil.copytree(REPOSITORY / "Data", folder / "Data", ignore=shutil.ignore_patterns("*.txt*", "*.npy"))
    (folder / "verse.txt").write_text(VERSE * 60, encoding="utf-8")
    patch.chdir(folder)
    # The trial takes longer than these runs.
    patch.setattr("src.runtime._bf16_gain", lambda device, packed_width: 0.5)


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


@pytest.fixture(scope="module")
def hugging_face_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random GPT-2 as transformers saves it."""
    folder = tmp_path_factory.mktemp("hf")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_positions=64, n_embd=64, n_head=1, n_layer=2)).save_pretrained(folder)
    return folder


def exit_code(script: Callable, *argv: str) -> int:
    """The exit code of a script, run as from the command line."""
    with pytest.raises(SystemExit) as exited:
        run_script(lambda: script(list(argv)))
    return exited.value.code


def error(capsys: pytest.CaptureFixture) -> str:
    """The only line on stderr."""
    [line] = [line for line in capsys.readouterr().err.splitlines() if line]
    assert "Traceback" not in line
    return line


def test_all_stages_from_text_to_chat(
    trained: Path, all_stages: tuple[Path, list[str]], capsys: pytest.CaptureFixture
) -> None:
    pretraining, tuning, alignment = all_stages[1]
    assert "next: python instruction_tune.py" in pretraining
    assert "context 32: " in pretraining and "396,800 without the embeddings" in pretraining
    assert "checkpoints/scratch/best_model.pt, best available, no finetuned or pretrained model yet" in tuning
    assert "none: training loss decides the best model" in tuning
    assert "What is the capital of France?" in tuning
    assert "next: python dpo_train.py" in tuning
    assert "next: python chat.py" in alignment
    assert "| loss   0.6931 |" in alignment  # the first step: policy and reference are equal
    assert chat.main(["--prompt", "What is the capital of France?", "--max-tokens", "5", "--seed", "1"]) == 0
    assert "Model: checkpoints/dpo_aligned (best available)" in capsys.readouterr().err


def test_checkpoints_name_parent_tokenizer_and_template(trained: Path) -> None:
    stages = ["scratch", "instruction_tuned", "dpo_aligned"]
    paths = [Path("checkpoints") / stage / "best_model.pt" for stage in stages]
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
    assert {metadata["tokenizer"]["fingerprint"] for metadata in found} == {encoding_fingerprint(load_gpt2_encoding())}
    for path in paths:
        assert "optimizer" not in read_checkpoint(path)
        assert "optimizer" in read_checkpoint(path.with_name("latest_model.pt"))


def test_a_word_tokenizer_is_used_in_all_stages(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.main([*PRETRAIN, "--tokenizer", "word"]) == 0
    assert instruction_tune.main(TUNE) == 0
    assert dpo_train.main(TUNE) == 0
    stages = ("scratch", "instruction_tuned", "dpo_aligned")
    found = [load_model(f"checkpoints/{stage}") for stage in stages]
    first = load_encoding(found[0][1]["tokenizer"])
    assert first.decode(first.encode_ordinary(VERSE)) == VERSE
    # The words of the later stages' examples are in the vocabulary, too.
    asked = "### Instruction:\nWhat is photosynthesis?\n\n### Response:\n"
    assert first.decode(first.encode_ordinary(asked)) == asked
    for model, metadata in found:
        assert metadata["tokenizer"] == describe(first)
        assert model.config.vocab_size == first.n_vocab < 2000
    capsys.readouterr()
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
    found = [load_model(f"checkpoints/{stage}") for stage in ("scratch", "instruction_tuned", "dpo_aligned")]
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


def test_unknown_words_are_reported(folder: Path, capsys: pytest.CaptureFixture) -> None:
    main.main([*PRETRAIN, "--tokenizer", "word"])
    Path("mine.json").write_text(json.dumps([{"instruction": "What is a zyzzyva?", "response": "A weevil."}]), "utf-8")
    capsys.readouterr()
    assert instruction_tune.main(["--data", "mine.json", "--max-steps", "1", "--batch-size", "1"]) == 0
    assert "2 words are not in the model's vocabulary: zyzzyva, weevil" in capsys.readouterr().out


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


def test_more_steps_extend_a_finished_run(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.main([*PRETRAIN, "--max-steps", "5"]) == 0
    assert "continuing the finished run at step 3 of 5" in capsys.readouterr().out
    assert read_checkpoint(Path("checkpoints/scratch/latest_model.pt"))["step"] == 5


def test_show_mask_marks_the_response_and_trains_nothing(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert instruction_tune.main(["--show-mask"]) == 0
    output = capsys.readouterr().out
    assert "### Response:\n[[The capital of France is Paris, a city on the river Seine.<|endoftext|>]]" in output
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        (
            instruction_tune,
            ["  records        30", "[[The capital of France is Paris, a city on the river Seine.<|endo"],
        ),
        (
            dpo_train,
            [
                "  pairs          20\n  turns          20, at most 1 per pair",
                "[[The capital of France is Lyon, a large city",
            ],
        ),
    ],
)
def test_show_data_describes_the_data_and_trains_nothing(
    folder: Path, capsys: pytest.CaptureFixture, script, lines: list[str]
) -> None:
    assert script.main(["--show-data"]) == 0
    output = capsys.readouterr().out
    assert all(line in output for line in lines)
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    ("script", "bad"),
    [(instruction_tune, {"instruction": "a", "output": ""}), (dpo_train, {"instruction": "a", "chosen": "b"})],
)
def test_skip_bad_leaves_bad_records_out(folder: Path, capsys: pytest.CaptureFixture, script, bad: dict) -> None:
    good = {"instruction": "a", "output": "b"} if script is instruction_tune else {**bad, "rejected": "c"}
    Path("mine.json").write_text(json.dumps([good] * 10 + [bad]), "utf-8")
    assert exit_code(script.main, "--data", "mine.json", "--show-data") == 1
    assert "--skip-bad" in error(capsys)
    assert script.main(["--data", "mine.json", "--show-data", "--skip-bad"]) == 0
    assert "note: mine.json: left out 1 of 11 records: " in capsys.readouterr().out


def test_without_validation_training_loss_decides_the_best_model(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.main([*PRETRAIN, "--tokenizer", "word", "--val-fraction", "0"]) == 0
    assert "eval      3/3 | train" in capsys.readouterr().out
    assert read_checkpoint(Path("checkpoints/scratch/best_model.pt"))["val_loss"] is None


@pytest.mark.parametrize(
    ("script", "argv", "words"),
    [
        (instruction_tune, [], ["checkpoints/scratch/best_model.pt: not found", "python main.py"]),
        (dpo_train, [], ["checkpoints/instruction_tuned/best_model.pt: not found", "python instruction_tune.py"]),
        (chat, ["--prompt", "hi"], ["not found", "python main.py"]),
        (chat, ["--model", "dpo", "--prompt", "hi"], ["checkpoints/dpo_aligned", "python dpo_train.py"]),
        (instruction_tune, ["--base", "nowhere.pt"], ["nowhere.pt: no such file"]),
        (instruction_tune, ["--base", "verse.txt"], ["verse.txt"]),
        (instruction_tune, ["--data", "nowhere.json"], ["nowhere.json not found", "--data"]),
        (instruction_tune, ["--data", "verse.txt"], ["verse.txt", "JSON"]),
        (main, ["--data", "nowhere.txt"], ["nowhere.txt not found", "--data"]),
        (main, ["--data", "verse.txt", "--context-length", "5000"], ["5001", "--context-length"]),
        (main, ["--data", "verse.txt", "--precision", "fp16", "--device", "cpu"], ["--precision fp16", "CUDA"]),
        (finetune_gpt2, [*SHORT, "--data", "verse.txt", "--weights", "nowhere"], ["nowhere"]),
        (finetune_gpt2, [*SHORT, "--data", "verse.txt", "--model", "gpt3-175B"], ["gpt3-175B", "gpt2-124M"]),
    ],
)
def test_missing_or_bad_input_is_one_line_and_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture, script, argv: list[str], words: list[str]
) -> None:
    assert exit_code(script.main, *argv) == 1
    line = error(capsys)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("script", "argv"),
    [
        (main, ["--data", "verse.txt", "--model", "gpt3-175B"]),
        (finetune_gpt2, ["--data", "verse.txt", "--model", "gpt2-1558M"]),
        (finetune_gpt2, ["--data", "verse.txt"]),
        (instruction_tune, []),
        (dpo_train, []),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_it_is_built(
    folder: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    hugging_face_folder: Path,
    script,
    argv,
) -> None:
    if not argv or argv[-1] == "verse.txt":
        source = "--weights" if script is finetune_gpt2 else "--base"
        argv = [*argv, source, str(hugging_face_folder), "--context-length", "32"]
    monkeypatch.setattr("src.training.fit.usable_memory", lambda: (10**8, "the memory limit of its container"))
    monkeypatch.setattr("src.training.fit.swap_space", lambda: 0)
    with monkeypatch.context() as patch:
        patch.setattr("src.training.shared_model.GPTModel", lambda config: pytest.fail("built"))
        patch.setattr("main.prepare_data", lambda *_: pytest.fail("tokenised"))
        patch.setattr("src.checkpoint.other_weights.load_gpt2", lambda *_: pytest.fail("loaded"))
        patch.setattr(
            "src.training.pretrained.find_weights",
            lambda source: Path(source) if "hf" in str(source) else pytest.fail("downloaded"),
        )
        assert exit_code(script.main, *argv) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: this run does not fit in memory: a step needs about ")
    assert "there are 0.1 GB, the memory limit of its container; " in line
    if "gpt" not in argv[-1]:
        assert exit_code(script.main, *argv, "--no-memory-check", "--max-steps", "1", "--device", "cpu") == 0


@pytest.mark.parametrize("script", [instruction_tune, dpo_train])
def test_the_lengths_of_records_decide_whether_they_fit(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, hugging_face_folder: Path, script
) -> None:
    """A step is refused for the tokens in it, not for those that the context could hold."""
    short = json.dumps([{"instruction": "Why?", "response": "So.", "chosen": "So.", "rejected": "No."}] * 4)
    long = short.replace("So.", "so " * 50)
    seen: list[int] = []
    require = parallel.require_fit
    monkeypatch.setattr(
        parallel, "require_fit", lambda work, device: (seen.append(work.context_length), require(work, device))
    )
    for text in (short, long):
        Path("records.json").write_text(text, encoding="utf-8")
        argv = ["--data", "records.json", "--base", str(hugging_face_folder), "--max-steps", "1", "--device", "cpu"]
        argv += ["--system-share", "0"] if script is instruction_tune else []
        assert exit_code(script.main, *argv, "--val-fraction", "0", "--no-resume") == 0
    *early_short, short_tokens = seen[:3]  # before the model is loaded, after it, and before the first step
    *early_long, long_tokens = seen[3:]
    assert early_short == early_long == [1, 1]
    assert short_tokens < 25 < long_tokens < 64


@pytest.mark.parametrize(
    ("script", "argv", "words"),
    [
        (main, ["--max-step", "3"], ["--max-step", "did you mean --max-steps?"]),
        (main, ["--steps", "3"], ["--steps", "did you mean --warmup-steps or --max-steps?"]),
        (main, ["--batch-size", "0"], ["--batch-size must be at least 1, got 0"]),
        (main, ["--max-lr", "fast"], ["--max-lr", "fast"]),
        (main, ["--model", "gigantic"], ["--model gigantic: no such size", "gpt2-124M"]),
        (main, ["--min-lr", "1", "--max-lr", "0.5", "--dropout", "2"], ["--min-lr", "--dropout"]),
        (dpo_train, ["--beta", "0"], ["--beta must be above 0"]),
        (dpo_train, ["--loss", "kto"], ["kto", "sigmoid"]),
        (dpo_train, ["--label-smoothing", "0.1"], ["--label-smoothing works only with --loss robust"]),
        (instruction_tune, ["--turns", "0"], ["--turns must be at least 1"]),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture, script, argv: list[str], words: list[str]
) -> None:
    assert exit_code(script.main, *argv) == 2
    line = error(capsys)
    for word in words:
        assert word in line


def test_the_trial_of_tuning_has_the_width_of_the_base(
    folder: Path, hugging_face_folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.runtime.has_bf16_products", lambda device: True)
    monkeypatch.setattr("src.runtime._bf16_gain", lambda device, packed_width: 9.0 if packed_width == 64 else 0.5)
    asked = ["--base", str(hugging_face_folder), "--max-steps", "1", "--device", "cpu"]
    assert exit_code(instruction_tune.main, *asked) == 0
    assert "cpu, bf16 (a trial step ran 9.0 times as fast as in fp32)" in capsys.readouterr().out


@pytest.mark.parametrize("script", [main.main, instruction_tune.main])
def test_out_must_not_be_a_file(folder: Path, capsys: pytest.CaptureFixture, script: Callable) -> None:
    Path("taken").write_text("mine", encoding="utf-8")
    assert exit_code(script, "--out", "taken") == 2
    assert "--out must be a folder, taken is a file" in error(capsys)
    assert Path("taken").read_text(encoding="utf-8") == "mine"


def test_learning_rates_are_checked_after_the_recipe(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.main([*PRETRAIN, "--tokenizer", "word", "--min-lr", "0.001"]) == 0  # above the constant, below micro's
    assert "learning rate  0.01 to 0.001" in capsys.readouterr().out
    assert exit_code(main.main, *PRETRAIN, "--min-lr", "1") == 1
    assert "--min-lr must not be above --max-lr, got 1 and" in error(capsys)


def test_a_failed_fine_tuning_leaves_no_conversion_behind(
    folder: Path, hugging_face_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = ["--weights", str(hugging_face_folder), "--data", "verse.txt"]
    assert exit_code(finetune_gpt2.main, *weights, "--context-length", "65") == 1
    note, line = capsys.readouterr().err.splitlines()
    assert note.endswith("has no tokenizer files: assuming GPT-2's")
    assert line == "error: --context-length 65: the model's is 64"
    assert not Path("checkpoints/gpt2_pretrained.pt").exists()


def test_a_bad_record_fails_before_anything_is_loaded(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("mine.json").write_text(json.dumps([{"instruction": "a", "response": "b"}, {"instruction": "c"}]), "utf-8")
    assert exit_code(instruction_tune.main, "--data", "mine.json") == 1
    assert "mine.json record 2: 'response' or 'output' is missing" in error(capsys)
    assert not Path("checkpoints").exists() and not Path("logs").exists()


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


def test_a_changed_base_is_not_resumed(trained: Path, capsys: pytest.CaptureFixture) -> None:
    main.main([*PRETRAIN, "--seed", "5"])
    capsys.readouterr()
    assert exit_code(instruction_tune.main, *TUNE, "--max-steps", "4", "--resume") == 1
    assert "a finished run with other settings (base differs)" in error(capsys)
