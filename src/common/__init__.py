"""The lowest layer: files, disk space, hub downloads, one-line messages, value checks. It imports nothing of ours."""
