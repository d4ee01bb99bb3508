"""Exercises on attention: functions to write, checks that explain what is wrong, and worked solutions."""
