"""Generation step by step: sequence, cached model, sampling, text stream and the batch scheduler."""
