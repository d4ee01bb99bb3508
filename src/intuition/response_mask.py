"""The response mask: which tokens of an example a model learns from.

Run it: python -m src.intuition response-mask
"""

from src.common.terminal import has_colours
from src.intuition.terminal import green, grey, heading, lines, say, suggest
from src.tokenizer import Encoding, load_gpt2_encoding

INSTRUCTION = "Capital of France?"
RESPONSE = "It is Paris."
PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n"  # as in src/data/prompts.py


def mark_response(instruction: str, response: str, encoding: Encoding) -> tuple[list[int], list[bool]]:
    """The ids of an example, and a mask: True for the response and the end-of-text token after it.

    Prompt and response are encoded separately, without white space around them, so that no merge can cross the border
    between them.
    """
    prompt = encoding.encode_ordinary(PROMPT.replace("{instruction}", instruction.strip()))
    answer = [*encoding.encode_ordinary(response.strip()), encoding.eot_token]
    return prompt + answer, [False] * len(prompt) + [True] * len(answer)


def response_mask() -> None:
    """Show which tokens of a training example are supervised in instruction tuning."""
    heading("response-mask", "what instruction tuning learns from")
    encoding = load_gpt2_encoding()
    ids, learned = mark_response(INSTRUCTION, RESPONSE, encoding)
    tokens = [encoding.decode([id_]) for id_ in ids]
    how = "The prompt is grey, the response green" if has_colours() else "[[ and ]] enclose the response"
    say(f"""A model trained on books continues a text. In the demonstration `fine-tuning`, examples made a model answer.
        Instruction tuning (SFT) does that with real tokens, and always in the same format. {how}:""")
    lines(_marked(tokens, learned).split("\n"))
    say("""The model sees all of it, but the loss is computed only on the response; the prompt is masked.
        Otherwise the model would also learn to write questions, headings and all. Token by token:""")
    lines(
        f"{'learned' if mark else 'masked':<9}{id_:>6}  {token!r}"
        for id_, token, mark in zip(ids, tokens, learned, strict=True)
    )
    first = learned.index(True)
    say(f"""{sum(learned)} of {len(ids)} tokens are learned, or supervised. Each token is predicted at the position
        before it: at {tokens[first - 1]!r}, the end of the prompt, the model has to predict {tokens[first]!r}. The last
        token that it learns is {tokens[-1]!r}. Without it a model would never learn when to stop.""")
    say("For your own data, `python instruction_tune.py --show-data` shows the same.")
    suggest("""write a longer INSTRUCTION in src/intuition/response_mask.py. How many tokens are learned now?""")


def _marked(tokens: list[str], learned: list[bool]) -> str:
    """The text of an example: prompt grey and response green, or without colours the response in [[ ]]."""
    prompt = "".join(token for token, mark in zip(tokens, learned, strict=True) if not mark)
    response = "".join(token for token, mark in zip(tokens, learned, strict=True) if mark)
    if not has_colours():
        return f"{prompt}[[{response}]]"
    return "\n".join(map(grey, prompt.split("\n")[:-1])) + "\n" + green(response)
