"""The curves of training runs: read their logs, and draw them as one picture."""
