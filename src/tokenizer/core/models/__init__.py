"""The data models of the word tokenizer. All are immutable."""

from src.tokenizer.core.models.encoded_text import EncodedText, EncodedTextWithTokens
from src.tokenizer.core.models.vocabulary import Vocabulary
from src.tokenizer.core.models.vocabulary_info import VocabularyInfo

__all__ = ["EncodedText", "EncodedTextWithTokens", "Vocabulary", "VocabularyInfo"]
