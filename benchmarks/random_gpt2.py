"""python -m benchmarks.random_gpt2 FOLDER: a GPT-2 of 124M random parameters, saved as Hugging Face saves one.

To time and measure what real weights of that size would cost, where they cannot be downloaded.
"""

import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m benchmarks.random_gpt2 FOLDER", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(sys.argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
