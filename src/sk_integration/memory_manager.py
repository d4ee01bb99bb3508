"""What the assistant remembers: conversations, each in its own file, and facts that every conversation can recall."""

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
