import pytest
from support import tiny_model, trained_model

from bytelm.encoding import get_encoding
from bytelm.hub import LanguageModel


@pytest.fixture(scope="session")
def dense():
    return get_encoding("dense-ja")


@pytest.fixture(scope="session", params=["independent", "chained"])
def lm(request):
    """A language model that knows a little."""
    return LanguageModel(*trained_model(request.param))


@pytest.fixture(scope="session", params=["independent", "chained"])
def random_lm(request, dense):
    return LanguageModel(tiny_model(request.param), dense)


@pytest.fixture(scope="session")
def utf8_lm():
    return LanguageModel(tiny_model("chained"), get_encoding("utf8"))
