"""GPT-2 in PyTorch: sizes, layers, generation, and OpenAI's weights."""
