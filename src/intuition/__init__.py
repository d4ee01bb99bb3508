"""Demonstrations that teach one idea each: `python -m src.intuition` lists them. Nothing else imports them."""
