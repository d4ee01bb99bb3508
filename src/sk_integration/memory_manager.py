"""The assistant's memory, re-exported from src.memory: saved conversations, and facts that all of them can recall."""

from src.memory.long_term import Fact, LongTermMemory, RecalledFact
from src.memory.sessions import Conversation, SessionInfo, SessionStore, StoredMessage

__all__ = [
    "Conversation",
    "Fact",
    "LongTermMemory",
    "RecalledFact",
    "SessionInfo",
    "SessionStore",
    "StoredMessage",
]
