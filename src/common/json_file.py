"""Read a JSON object from a file that anyone may have written."""

import json
from pathlib import Path
from typing import Any

from src.common.messages import one_line


def read_json_object(path: Path, advice: str = "download it again") -> dict[str, Any]:
    """The object in a JSON file; a byte order mark is skipped. The message of an error ends with `advice`.

    Raises ValueError in one line if the file is not JSON in UTF-8, is nested too deeply, or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({one_line(error)}); {advice}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains a {type(content).__name__}, expected a JSON object; {advice}")
    return content
