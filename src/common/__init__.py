"""The ground floor: atomic writes, disk space, one-line messages and checks of values. It imports nothing of ours."""
