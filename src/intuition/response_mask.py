"""What a model learns from an instruction and its answer, and what it only reads.

Run it: python -m src.intuition response-mask
"""

from src.intuition.terminal import green, grey, has_colours, heading, lines, say, suggest
from src.tokenizer import Encoding, load_gpt2_encoding

INSTRUCTION = "Capital of France?"
RESPONSE = "It is Paris."
PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n"  # as in src/data/prompts.py


def mark_response(instruction: str, response: str, encoding: Encoding) -> tuple[list[int], list[bool]]:
    """The ids of an example, and for each whether it is learned: the response and the one end-of-text after it.

    Prompt and response are encoded apart. Encoded together, a merge could swallow the border between them.
    """
    prompt = encoding.encode_ordinary(PROMPT.replace("{instruction}", instruction))
    answer = [*encoding.encode_ordinary(response), encoding.eot_token]
    return prompt + answer, [False] * len(prompt) + [True] * len(answer)


def response_mask() -> None:
    heading("response-mask", "what instruction tuning learns from")
    encoding = load_gpt2_encoding()
    ids, learned = mark_response(INSTRUCTION, RESPONSE, encoding)
    tokens = [encoding.decode([id_]) for id_ in ids]
    how = "The prompt is grey, the response green" if has_colours() else "The response stands between [[ and ]]"
    say(f"""A model that was trained on books goes on with a text, it does not answer. Instruction tuning (SFT)
        shows it questions with answers, always in the same form. {how}:""")
    lines(_marked(tokens, learned).split("\n"))
    say("""The model reads all of it, but its loss counts at the response only. Otherwise it would learn to write
        questions, too, headings and all. Token by token:""")
    lines(
        f"{'learned' if mark else 'read':<9}{id_:>6}  {token!r}"
        for id_, token, mark in zip(ids, tokens, learned, strict=True)
    )
    first = learned.index(True)
    say(f"""{sum(learned)} of {len(ids)} tokens are learned. The prediction of a token is made at the one before
        it: at {tokens[first - 1]!r}, the last of the prompt, the model is asked for {tokens[first]!r}. And the
        last token that it learns is {tokens[-1]!r}, end-of-text. Without it a model would never learn when to
        stop.""")
    say("In a run, `python instruction_tune.py --show-mask` shows the same for your own data.")
    suggest("""write a longer INSTRUCTION in src/intuition/response_mask.py. How many tokens are learned then?""")


def _marked(tokens: list[str], learned: list[bool]) -> str:
    """The text of an example, grey where it is only read and green where it is learned, or with [[ ]] around that."""
    prompt = "".join(token for token, mark in zip(tokens, learned, strict=True) if not mark)
    response = "".join(token for token, mark in zip(tokens, learned, strict=True) if mark)
    if not has_colours():
        return f"{prompt}[[{response}]]"
    return "\n".join(map(grey, prompt.split("\n")[:-1])) + "\n" + green(response)
