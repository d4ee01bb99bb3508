"""What outlives a chat: sessions, long-term facts and typed lines. No Semantic Kernel in here."""
