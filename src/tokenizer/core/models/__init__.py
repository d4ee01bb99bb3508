"""The values that the parts hand to each other; none can be changed once it is made."""

from src.tokenizer.core.models.encoded_text import EncodedText, EncodedTextWithTokens
from src.tokenizer.core.models.vocabulary import Vocabulary
from src.tokenizer.core.models.vocabulary_info import VocabularyInfo

__all__ = ["EncodedText", "EncodedTextWithTokens", "Vocabulary", "VocabularyInfo"]
