"""What `python -m src.evaluate` measures: the loss of a text, copies of the training text, and scores of tasks."""
