"""Exercises on attention: stubs to fill in, checks that say what is wrong, and worked solutions."""
