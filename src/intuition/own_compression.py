"""How many bits each token of a text costs under the model in a checkpoint, next to gzip.

Run it: python -m src.intuition compression --checkpoint scratch --text "Who goes there?"
"""

import math
from collections.abc import Sequence
from textwrap import wrap

import torch
import torch.nn.functional as F

from src.checkpoint import load_base
from src.common.messages import spelling, visible, without_surrogates
from src.evaluation.perplexity import windows
from src.intuition.compression import gzip_bytes, show_sizes
from src.intuition.terminal import heading, lines, say, suggest
from src.model.gpt import GPTModel
from src.tokenizer.protocols.interfaces import WordEncoding

PASSAGE = """\
The king sat long in silence by the window, and no man durst
speak to him. At last he turned and said: My lords, the
night is cold and the road is long; let us go in, and eat,
and talk no more of war. So they went in together, and the
doors were shut, and the fire was made high; but the old man
who kept the gate stayed where he was, and watched the snow
come down upon the hills, and thought of his sons, and of
the ships that had gone out in spring, and had not come
home."""
SHOWN = 16


@torch.no_grad()
def token_bits(model: GPTModel, ids: Sequence[int], start: int) -> list[float]:
    """-log2(probability) of each id after the token `start`, predicted from the ids before it.

    Beyond the model's context, the window moves by half its length, so each prediction sees at least that many ids.
    """
    tokens = torch.tensor([start, *ids])
    bits: list[float] = []
    for begin, first, end in windows(len(tokens), model.config.context_length, model.config.context_length // 2):
        logits = model(tokens[None, begin : end - 1])[0, first - begin - 1 :].float()
        bits += (F.cross_entropy(logits, tokens[first:end], reduction="none") / math.log(2)).tolist()
    return bits


def own_compression(checkpoint: str, text: str = PASSAGE) -> None:
    """Show the bits of a text under the model in a checkpoint.

    Raises ValueError if its tokenizer does not keep all of a text, and the errors of `load_base`.
    """
    base = load_base(checkpoint)
    if isinstance(base.encoding, WordEncoding):
        raise ValueError(
            f"{base.path} has the word tokenizer, which drops spaces, so its tokens do not give the text back; pass a "
            "model with byte pairs: python main.py"
        )
    text = without_surrogates(text.strip())
    ids, data = base.encoding.encode_ordinary(text), text.encode()
    bits = token_bits(base.model, ids, base.encoding.eot_token)
    heading("compression", "your own model against gzip")
    say(f"""{base.path} predicts each token of this text from those before it. A token with probability p costs
        -log2(p) bits, so a good guess is cheap:""")
    lines(part for line in visible(text).splitlines() for part in wrap(line, 76) or [""])
    tokens = [spelling(base.encoding.decode_single_token_bytes(id_)) for id_ in ids]
    lines([
        f"{'token':<16}{'p':>9}{'bits':>8}",
        *(f"{f'|{token}|':<16}{2**-n:9.6f}{n:8.2f}" for token, n in list(zip(tokens, bits, strict=True))[:SHOWN]),
        *(["..."] if len(ids) > SHOWN else []),
        f"{len(ids):,} tokens{sum(bits):{33 - len(f'{len(ids):,} tokens')}.2f} bits",
    ])  # fmt: skip
    say(f"""Arithmetic coding, as in `compression` without --checkpoint, needs at most two bits more. That is a loss
        of {sum(bits) * math.log(2) / len(ids):.4f} nats per token. The sizes:""")
    show_sizes(data, "your model", sum(bits))
    weights = base.model.config.parameter_count()[0]
    say(f"""gzip knows nothing before the text, and {gzip_bytes(b"")} of its bytes are a frame that even an empty text
        needs. Your model has read its training text. But a receiver needs the model, too: {weights:,} numbers of 4
        bytes are {4 * weights / 1e6:,.1f} MB. So it pays if the texts are much longer than that, or if the receiver
        has the model already.""")
    suggest("""--text with a line that your model may know, then with one in another language. Or set SHOWN in
        src/intuition/own_compression.py to 100: which tokens cost most?""")
