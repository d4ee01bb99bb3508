"""The model card of an export: what the model is, what it was trained from and on, and its measured losses."""

from src.checkpoint import LoadedModel
from src.checkpoint.description import describe_ancestor, model_rows, training_rows
from src.checkpoint.lineage import ancestors
from src.data.prompts import OLD_TEMPLATE

OLD_TEMPLATE_NOTE = (
    "other programs tokenise a system message differently from training, so the model may answer badly after one; "
    "python instruction_tune.py tunes a model with the current one"
)


def model_card(base: LoadedModel) -> str:
    """The content of README.md in the exported folder."""
    template = base.metadata.get("template")
    rows = [row for row in (*model_rows(base), *training_rows(base.metadata)) if row[0] != "model"]
    rows += [("comes from", describe_ancestor(ancestor)) for ancestor in ancestors(base.metadata)]
    table = "\n".join(f"| {name} | {_cell(text)} |" for name, text in rows)
    use = (
        "It answers questions: use its chat template."
        if template
        else "It continues a text; it was not tuned to answer."
    )
    notes = [use, *([f"Note: {OLD_TEMPLATE_NOTE}."] if template == OLD_TEMPLATE else [])]
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- gpt2\n---\n\n# A GPT-2\n\n"
        + " ".join(notes)
        + "\n\nLosses are in nats per token, as measured in training.\n\n| | |\n| --- | --- |\n"
        + table
        + "\n"
    )


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
