"""Vocabularies: build them from texts, save and load them."""
