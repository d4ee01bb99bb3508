"""Imports Semantic Kernel only when it is needed, with a clear error if that fails."""

import logging
from importlib import import_module

from src.common.messages import one_line

INSTALL = "python -m pip install -r requirements.txt"


def import_semantic_kernel() -> None:
    """Import the package, which takes a second or two, and silence its logger.

    Raises ImportError with one line that names the remedy.
    """
    logging.getLogger("semantic_kernel").setLevel(logging.CRITICAL)  # we report its errors ourselves
    try:
        import_module("semantic_kernel")
    except ModuleNotFoundError as error:
        problem = "is not installed" if error.name == "semantic_kernel" else f"cannot be imported ({one_line(error)})"
        raise ImportError(f"semantic-kernel {problem}; install it with {INSTALL}") from error
    except ValueError as error:  # pydantic's: the package reads settings while it is imported
        detail = " ".join(str(error).split("[type=")[0].split())
        raise ImportError(
            "semantic-kernel rejects a variable of the environment or of ./.env whose name begins with "
            f"SEMANTICKERNEL_; correct or remove it ({detail})"
        ) from error
    except Exception as error:  # mismatched dependencies can raise anything
        raise ImportError(
            f"semantic-kernel cannot be imported ({one_line(error)}); reinstall it with {INSTALL} --force-reinstall"
        ) from error
