"""Byte-level language models that predict several bytes at once."""

from typing import TYPE_CHECKING, Any

from bytelm.encoding import EncodingView as EncodingView
from bytelm.encoding import get_encoding as get_encoding
from bytelm.errors import BytelmError as BytelmError
from bytelm.hf.registration import register as _register_with_transformers
from bytelm.tokenizer import Tokenizer as Tokenizer

if TYPE_CHECKING:
    from bytelm.hub import LanguageModel as LanguageModel
    from bytelm.hub import load as load

_NEEDS_TORCH = ("LanguageModel", "load")


_register_with_transformers()


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use, so that encodings and tokenizers work without it."""
    if name in _NEEDS_TORCH:
        import bytelm.hub

        return getattr(bytelm.hub, name)
    raise AttributeError(f"module 'bytelm' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, those that were not asked for yet as well."""
    return sorted({*globals(), *_NEEDS_TORCH})
