"""Benchmarks; README.md in this folder lists their commands and results."""
