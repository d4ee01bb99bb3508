"""python -m src.evaluate: loss, perplexity and bits per byte of a text under a model.

A window slides over the text by --stride tokens. Each token but the first is predicted once, from the tokens before it
in its window. With a stride as long as the window, the first token of each window is not predicted. A smaller stride
gives each token more context, and takes longer. Compare perplexities only if text, tokenizer, context and stride are
the same. Bits per byte can be compared across lossless tokenizers: GPT-2's and learned byte pairs.
Instead, --memorised reports what the model copies from its training text, and --task scores LAMBADA or HellaSwag.
"""

if __name__ == "__main__":  # before the slow imports: Ctrl-C during them is one line
    from src.entry import run_module

    run_module("src.evaluate")

import json
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from src.checkpoint import LoadedModel, load_base
from src.cli import parse
from src.common.messages import naming_file
from src.data.split import split_tokens
from src.data.text import TokenArray, load_tokens
from src.evaluation.comparison import Sample, print_comparison, sample_prompts, samples_of
from src.evaluation.flags import Flags
from src.evaluation.memorisation import measure_copies, print_copies
from src.evaluation.perplexity import Result, check_lengths, finite, measure_text, print_result
from src.evaluation.tasks import print_published, print_score, read_questions, score_task
from src.model.generate import TextGenerator
from src.model.quantize import quantize_int8
from src.runtime import choose_runtime, keep_freed_memory
from src.tokenizer import Encoding


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the flags ask for, as lines or as JSON; returns the exit code."""
    flags, given = parse(Flags, argv, __doc__)
    keep_freed_memory()
    with redirect_stdout(sys.stderr) if flags.json else nullcontext():  # the data and the downloads print notes
        if flags.task:
            report = evaluate_task(flags)
        elif flags.memorised:
            report = evaluate_memorisation(flags, given)
        else:
            report = evaluate_text(flags)
    if flags.json:
        print(json.dumps(report, indent=1, allow_nan=False))
    return 0


def evaluate_text(flags: Flags) -> dict[str, Any]:
    """The loss of each model on the text, and samples of all of them if --compare is given; as a JSON object.

    The models of a comparison share the windows: the shortest of their contexts, unless --context-length is given.
    """
    bases, generators = load_models(flags)
    context_length = flags.context_length or min(each.model.config.context_length for each in generators)
    stride = flags.stride or max(1, context_length // 2)
    for generator in generators:
        check_lengths(generator.model, context_length, stride)
    part = "all of it" if flags.val_fraction == 1 else f"the last {100 * flags.val_fraction:g}%"
    texts, results = [], []
    for base, generator in zip(bases, generators, strict=True):
        ids = load_eval_tokens(flags, base.encoding)
        texts.append(ids)
        print(f"text     {' '.join(flags.paths)}, {part}: {len(ids):,} tokens")
        _print_model(base, generator, flags)
        print(f"windows  {context_length} tokens, stride {stride}", flush=True)
        lengths = {"context_length": context_length, "stride": stride}
        results.append(measure_text(str(base.path), generator.model, base.encoding, ids, **lengths))
        print_result(results[-1])
    samples = []
    if flags.compare:
        prompts = sample_prompts(texts[-1], bases[-1].encoding)
        samples = samples_of(generators, prompts, flags.seed)
        print_comparison(results, samples)
    return _as_json(results, samples, flags)


def load_eval_tokens(flags: Flags, encoding: Encoding) -> TokenArray:
    """The token ids of the end of the text: the part that main.py keeps for validation."""
    ids = load_tokens(flags.data, encoding, flags.documents, skip_bad=flags.skip_bad)
    return split_tokens(ids, encoding, flags.val_fraction)[1] if flags.val_fraction < 1 else ids


def evaluate_memorisation(flags: Flags, given: Collection[str]) -> dict[str, Any]:
    """Measure how much of its training text the model's samples copy. The text is --data, or the recorded one."""
    [base], [generator] = load_models(flags)
    recorded = base.metadata.get("settings") or {}
    if base.metadata.get("stage") in ("pretrain", "finetune") and "data" in recorded and "data" not in given:
        data = recorded["data"]
        flags = replace(flags, data=tuple(map(Path, data)) if isinstance(data, list) else Path(data))
    ids = load_tokens(flags.data, base.encoding, flags.documents, skip_bad=flags.skip_bad)
    train_ids, val_ids = split_tokens(ids, base.encoding, flags.val_fraction)
    print(f"text     {' '.join(flags.paths)}: {len(train_ids):,} tokens to train on, {len(val_ids):,} to validate")
    _print_model(base, generator, flags)
    samples, real = measure_copies(generator, train_ids, val_ids, flags.seed)
    print_copies(samples, real)
    return {"model": str(base.path), "data": flags.paths, "samples": asdict(samples), "validation": asdict(real)}


def evaluate_task(flags: Flags) -> dict[str, Any]:
    """The score of each model on the records of --data."""
    assert flags.task and isinstance(flags.data, Path)
    questions = read_questions(flags.data, flags.task, skip_bad=flags.skip_bad)
    bases, generators = load_models(flags)
    scores = []
    for base, generator in zip(bases, generators, strict=True):
        _print_model(base, generator, flags)
        scores.append(score_task(str(base.path), generator.model, base.encoding, questions, flags.task))
        print_score(scores[-1])
    print_published(flags.task)
    return {
        "data": str(flags.data),
        "scores": [{**asdict(each), "perplexity": finite(each.perplexity)} for each in scores],
    }


def load_models(flags: Flags) -> tuple[list[LoadedModel], list[TextGenerator]]:
    """The models that are asked for, quantized if asked for, on the device."""
    int8 = flags.quantize == "int8"
    device = choose_runtime("cpu" if int8 else flags.device, "fp32").device
    bases = [load_base(os.path.expanduser(name)) for name in flags.models]
    generators = []
    for base in bases:
        with naming_file(base.path):  # TextGenerator checks that the model has an embedding for every id
            model = quantize_int8(base.model) if int8 else base.model
            generators.append(TextGenerator(model, base.encoding, device))
    return bases, generators


def _print_model(base: LoadedModel, generator: TextGenerator, flags: Flags) -> None:
    int8 = ", int8" if flags.quantize == "int8" else ""
    print(f"model    {base.path}, {base.reason}, on {generator.model.wpe.weight.device}{int8}", flush=True)


def _as_json(results: Sequence[Result], samples: Sequence[Sample], flags: Flags) -> dict[str, Any]:
    """All figures as one JSON object."""
    models = [{**asdict(each), "perplexity": finite(each.perplexity)} for each in results]
    text = {"data": flags.paths, "val_fraction": flags.val_fraction, "quantize": flags.quantize}
    if not flags.compare:
        return {**text, **models[0]}
    return {**text, "models": models, "samples": [asdict(each) for each in samples]}
