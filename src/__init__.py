"""Shared modules of the GPT-2 pipeline; the scripts beside this folder put them together."""
