"""The assistant's memory, re-exported from src.memory: saved conversations, and facts that all of them can recall."""

from src.memory.conversation import Conversation, StoredMessage
from src.memory.keeping import FactKeeper
from src.memory.long_term import Fact, LongTermMemory, RecalledFact
from src.memory.open_session import OpenSession
from src.memory.private_files import why_not_writable
from src.memory.sessions import SessionInfo, SessionStore

__all__ = [
    "Conversation",
    "Fact",
    "FactKeeper",
    "LongTermMemory",
    "OpenSession",
    "RecalledFact",
    "SessionInfo",
    "SessionStore",
    "StoredMessage",
    "why_not_writable",
]
