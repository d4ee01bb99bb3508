"""The ground floor: atomic files, one-line messages and checks of values. It imports nothing of ours."""
