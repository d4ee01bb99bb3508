"""From tokens to a vocabulary: count and choose, save and load."""
