"""Exercises: the functions of a GPT-2 to write, checks that explain what is wrong, and worked solutions."""
