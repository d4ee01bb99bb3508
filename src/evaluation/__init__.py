"""Evaluation of finished models, for `python -m src.evaluate`."""
