"""Our model in Semantic Kernel: the chat service, the assistant built on it, and its memory."""
