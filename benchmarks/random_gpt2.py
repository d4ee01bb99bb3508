"""python -m benchmarks.random_gpt2 FOLDER: save a GPT-2 124M with random weights in Hugging Face's format.

For timing every stage at full size if the real weights cannot be downloaded.
"""

import argparse
from pathlib import Path

from benchmarks.harness import require
from src.program import run_script


def save_random_gpt2(folder: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to write")
    folder = parser.parse_args().folder
    require("transformers")
    save_random_gpt2(folder)
    return 0


if __name__ == "__main__":
    run_script(main)
