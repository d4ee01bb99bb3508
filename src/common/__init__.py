"""The lowest layer: files, disk space, hub downloads, messages, output, value checks. It imports nothing of ours."""
