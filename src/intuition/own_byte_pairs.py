"""The byte pairs that a checkpoint learned from its text, and what they make of a sentence.

Run it: python -m src.intuition byte-pairs --checkpoint scratch --text "My lord, the telephone rang."
"""

from src.checkpoint import load_base
from src.common.messages import spelling
from src.intuition.terminal import filled, heading, lines, say, suggest
from src.tokenizer import Encoding, load_gpt2_encoding
from src.tokenizer.byte_pairs import BytePairEncoding
from src.tokenizer.processing.cleaner import TextCleaner
from src.tokenizer.processing.splitter import TextSplitter

SENTENCE = "My gracious lord, the telephone hath rung; shall I speak?"
SHOWN = 40
MIN_BYTES = 5


def own_byte_pairs(checkpoint: str, sentence: str = SENTENCE) -> None:
    """Show what the text of a checkpoint taught its tokenizer, next to GPT-2's.

    Raises ValueError if the checkpoint has another tokenizer, and the errors of `load_base`.
    """
    base = load_base(checkpoint)
    own, gpt2 = base.encoding, load_gpt2_encoding()
    if not isinstance(own, BytePairEncoding):
        raise ValueError(
            f"{base.path} has the {own.name} tokenizer, not byte pairs of its own; make one that has: "
            "python main.py --tokenizer bpe"
        )
    heading("byte-pairs", "what your own text taught")
    merges = [left + right for left, right in own.merges()]
    say(f"""{base.path} has a vocabulary of {own.n_vocab:,} tokens: the 256 bytes, {len(merges):,} merges, and end of
        text. Each merge made one token of the two that stood next to each other most often in its text. In order, the
        first {SHOWN} are:""")
    lines(filled(map(spelling, merges[:SHOWN])))
    say(f"GPT-2 learned from eight million web pages. Its first {SHOWN} merges:")
    lines(filled(spelling(gpt2.decode_single_token_bytes(id_)) for id_ in range(256, 256 + SHOWN)))
    known = {gpt2.decode_single_token_bytes(id_) for id_ in range(gpt2.eot_token)}
    unknown = [token for token in merges if token not in known and len(token) >= MIN_BYTES]
    say(f"""Of your merges, GPT-2 does not have {len([token for token in merges if token not in known]):,}. The first of
        at least {MIN_BYTES} bytes show what is special about your text:""")
    lines(filled(map(spelling, unknown[:SHOWN])))
    say(f"""How is a sentence cut? By GPT-2's tokenizer, which chooses from {gpt2.n_vocab:,} tokens; by the word
        tokenizer, which drops the spaces, and has no token for a new word; and by your own, which chooses from
        {own.n_vocab:,}:""")
    words = [spelling(word.encode()) for word in TextSplitter().split(TextCleaner().clean(sentence))]
    for name, tokens in {"GPT-2's": _cut(sentence, gpt2), "words": words, "your own": _cut(sentence, own)}.items():
        lines([f"{name}: {len(tokens)} tokens", *filled(tokens)])
    suggest("""--text with a sentence from your text, then with one from a newspaper. Which needs more tokens? Or set
        SHOWN in src/intuition/own_byte_pairs.py to 200.""")


def _cut(text: str, encoding: Encoding) -> list[str]:
    return [spelling(encoding.decode_single_token_bytes(id_)) for id_ in encoding.encode_ordinary(text)]
