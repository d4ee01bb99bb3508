"""Next-token logits from hidden states, by a faster head if one is prepared.

n hidden states, C channels, V vocabulary.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from src.model.decoding.fast_head import HalfPrecisionHead
from src.model.gpt import GPTModel


class OutputHead:
    """The head of a model. Ids from `n_vocab` on, which the tokenizer does not have, get a logit of -inf."""

    def __init__(self, model: GPTModel, n_vocab: int) -> None:
        self._model, self._n_vocab = model, n_vocab
        self._fast_head: Future[HalfPrecisionHead] | None = None

    def prepare_fast_head(self, *, wait: bool) -> None:
        """Build a `HalfPrecisionHead` in the background if it is worthwhile. With `wait`, raises its error, if any."""
        if self._fast_head is None and HalfPrecisionHead.is_worthwhile(self._model):
            executor = ThreadPoolExecutor(1)
            self._fast_head = executor.submit(HalfPrecisionHead, self._model.wte.weight[: self._n_vocab].detach())
            executor.shutdown(wait=False)
        if self._fast_head is not None and wait:
            self._fast_head.result()

    @torch.inference_mode()
    def logits(self, states: Tensor, top_logits_needed: int | None = None) -> Tensor:
        """Logits (n, V) in float32 on the CPU: a seed gives the same random draws there, whatever the model's device.

        states: (n, C). top_logits_needed: only this many of the largest logits must be exact; None if all.
        """
        fast_head = self._fast_head
        if top_logits_needed and fast_head is not None and fast_head.done() and not fast_head.exception():
            fast_logits = fast_head.result().logits(states, top_logits_needed)
            if fast_logits is not None:
                return F.pad(fast_logits, (0, self._model.config.vocab_size - self._n_vocab), value=-torch.inf)
        logits = self._model.head(states).float().cpu()
        logits[:, self._n_vocab :] = -torch.inf
        return logits
