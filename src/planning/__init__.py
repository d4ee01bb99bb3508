"""What `python -m src.plan` computes and measures about a training run."""
