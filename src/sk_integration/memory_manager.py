"""What the assistant remembers: conversations, each in its own file, and facts that any conversation may recall.

Python's own library only, so that it loads in milliseconds and serves any front end.
"""

from src.memory.long_term import LongTermMemory, Memory, Recollection
from src.memory.sessions import Conversation, Message, SessionInfo, SessionStore
from src.memory.told_facts import worth_keeping

__all__ = [
    "Conversation",
    "LongTermMemory",
    "Memory",
    "Message",
    "Recollection",
    "SessionInfo",
    "SessionStore",
    "worth_keeping",
]
