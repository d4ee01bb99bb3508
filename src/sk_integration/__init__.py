"""Our model inside Semantic Kernel: the service, the assistant around it, and what it remembers."""
