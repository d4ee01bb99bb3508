"""--compile: the forward pass of training, compiled by torch.compile."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from src.model.gpt import GPTModel
from src.training.losses import LossFunction, language_model_loss


def compiled_language_model_loss(model: GPTModel) -> LossFunction:
    """`language_model_loss` with the model's `hidden_states` compiled; for windows of one length.

    The model itself stays eager: generation grows its KV cache by a token per step, and each new shape would be
    compiled again. The first call raises ValueError if this machine cannot compile.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import, and only needed here
    from torch._inductor.exc import InductorError

    compiled = torch.compile(model.hidden_states)

    def hidden_states(*args: Any, **kwargs: Any) -> Tensor:
        try:
            return compiled(*args, **kwargs)
        except (TorchDynamoException, InductorError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"--compile does not work on this machine ({reason}); leave it out") from error

    return partial(language_model_loss, hidden_states=hidden_states)
