"""The text that is piped to stdin next to --prompt: cat report.txt | python chat.py --prompt "Summarise this." """

import os
import sys
import threading
from queue import Empty, SimpleQueue

from src.common.messages import Notify

FIRST_BYTE_S = 5.0  # a program can inherit a pipe that nobody writes to or closes
MAX_BYTES = 16_000_000  # far more than fits any context; the pipe may never end


def prompt_and_input(prompt: str, notify: Notify) -> tuple[str, str]:
    """(the prompt, the text on stdin that it refers to, or "").

    The prompt "-" is itself read from stdin, also from a terminal. Raises ValueError if it is empty there, or if stdin
    sends too much.
    """
    if prompt == "-":
        text = _read_stdin(notify)
        if not text.strip():
            raise ValueError("--prompt - reads the prompt from stdin, which is empty")
        return text, ""
    if sys.stdin is None or sys.stdin.isatty():
        return prompt, ""
    text = _read_stdin(notify).strip()
    if text:
        notify(f"stdin is the input of the prompt: {len(text):,} characters")
    return prompt, text


def _read_stdin(notify: Notify) -> str:
    """All of stdin as text; "" if it is closed or sends nothing. Bytes that are not UTF-8 become U+FFFD."""
    chunks: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read_chunks, args=[chunks], daemon=True).start()
    data = b""
    try:
        while chunk := chunks.get(timeout=None if data or sys.stdin.isatty() else FIRST_BYTE_S):
            data += chunk
            if len(data) > MAX_BYTES:
                raise ValueError(f"stdin sends more than {MAX_BYTES / 1e6:.0f} MB; send a shorter text")
    except Empty:
        notify(f"stdin sent nothing for {FIRST_BYTE_S:.0f} s, so it was not read; add </dev/null to skip this wait")
    return data.decode("utf-8-sig", "replace")


def _read_chunks(chunks: "SimpleQueue[bytes]") -> None:
    """Put the bytes of stdin into the queue as they arrive, and b"" at the end.

    os.read, because a thread that waits in sys.stdin.read holds a lock, with which Python cannot exit.
    """
    try:
        while chunk := os.read(sys.stdin.fileno(), 1 << 16):
            chunks.put(chunk)
    except (OSError, ValueError):  # it cannot be read, as under nohup or in a notebook
        pass
    chunks.put(b"")
