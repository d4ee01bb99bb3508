"""The interfaces tokenizers share."""
