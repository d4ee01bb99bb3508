"""The answers. Try the exercises first."""
