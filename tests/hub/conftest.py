import pytest
from support import tiny_model, trained_lm

from bytelm.encoding import get_encoding
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def dense():
    return get_encoding("dense-ja")


@pytest.fixture(scope="session", params=["independent", "chained"])
def lm(request):
    """A language model that knows a little."""
    return trained_lm(request.param)


@pytest.fixture(scope="session", params=["independent", "chained"])
def random_lm(request, dense):
    return LanguageModel(tiny_model(request.param), Tokenizer(dense))


@pytest.fixture(scope="session")
def utf8_lm():
    return LanguageModel(tiny_model("chained"), Tokenizer(get_encoding("utf8")))
