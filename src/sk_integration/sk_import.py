"""Semantic Kernel, loaded where it is needed, and what helps where it cannot be."""

import logging
from importlib import import_module

from src.common.messages import one_line

INSTALL = "python -m pip install -r requirements.txt"


def import_semantic_kernel() -> None:
    """Load the package, which takes a second or two, and keep what it logs from the terminal.

    Raises ImportError, in one line, with the command that helps.
    """
    logging.getLogger("semantic_kernel").setLevel(logging.CRITICAL)  # what goes wrong is told in our own words
    try:
        import_module("semantic_kernel")
    except ModuleNotFoundError as error:
        missing = "is not installed" if error.name == "semantic_kernel" else f"does not load ({one_line(error)})"
        raise ImportError(f"semantic-kernel {missing}; install it with {INSTALL}") from error
    except ValueError as error:  # pydantic's: settings are read while the package is imported
        detail = " ".join(str(error).split("[type=")[0].split())
        raise ImportError(
            "semantic-kernel refuses a variable of the environment or of ./.env whose name begins with "
            f"SEMANTICKERNEL_; correct or remove it ({detail})"
        ) from error
    except Exception as error:  # a package that does not fit its dependencies can fail in any way
        raise ImportError(
            f"semantic-kernel does not load ({one_line(error)}); install it again with {INSTALL} --force-reinstall"
        ) from error
