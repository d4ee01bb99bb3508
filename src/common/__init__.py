"""The lowest layer: atomic writes, disk space, one-line messages and value checks. It imports no other part of src."""
