"""The library of the GPT-2 pipeline; the scripts at the top level use it."""
