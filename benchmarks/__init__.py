"""Measurements that anyone can repeat; README.md here says what they gave and on which machine."""
