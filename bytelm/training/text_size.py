"""How much text stands behind the symbols of a split, so that their nats become bits per character."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class TextSize:
    """What was counted over whole documents.

    Attributes:
        symbols: bytes or tokens that are predicted, those of BOS and EOS included.
        characters: of the text.
        utf8_bytes: of the text in UTF-8.
    """

    symbols: int
    characters: int
    utf8_bytes: int

    @property
    def symbols_per_character(self) -> float:
        """Symbols per character; a text without one counts as one."""
        return self.symbols / max(1, self.characters)

    @property
    def characters_per_utf8_byte(self) -> float:
        """Characters per UTF-8 byte."""
        return self.characters / max(1, self.utf8_bytes)
