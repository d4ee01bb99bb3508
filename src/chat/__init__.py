"""The chat: a conversation with a model, how it starts, and the terminal it runs in."""
