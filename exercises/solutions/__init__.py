"""The worked solutions. Try the exercises first."""
