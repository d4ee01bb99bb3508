"""Write a model in the formats of other programs: Hugging Face's folder, and llama.cpp's GGUF."""
