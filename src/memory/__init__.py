"""What outlives a chat: saved sessions, long-term facts and the typed history. No Semantic Kernel in here."""
