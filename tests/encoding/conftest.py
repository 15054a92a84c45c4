import pytest
from slow_coders import slow_coder

from bytelm.encoding import Encoding, get_encoding


@pytest.fixture(params=["utf8", "utf16", "utf32", "ranked2", "dense-ja", "dense-mul"], scope="session")
def encoding(request) -> Encoding:
    return get_encoding(request.param)


@pytest.fixture(scope="session")
def slow(encoding):
    """The slow, obvious coder of the same encoding."""
    return slow_coder(encoding)
