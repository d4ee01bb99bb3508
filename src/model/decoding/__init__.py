"""Generation step by step: sequence, cached model, output head, sampling, text stream, and the batch scheduler."""
