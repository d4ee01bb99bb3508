"""The chat: one conversation, how it starts, and the terminal it runs in."""
