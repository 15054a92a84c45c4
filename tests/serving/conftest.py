import pytest
from running_server import serving
from support import trained_lm


@pytest.fixture(scope="session")
def lm():
    """A language model that knows a little."""
    return trained_lm("chained")


@pytest.fixture(scope="session")
def plain_lm():
    """The same weights for ``generate``, whose target nobody else uses."""
    return trained_lm("chained")


@pytest.fixture(scope="module")
def running(lm):
    with serving(lm) as server:
        yield server


@pytest.fixture
def client(running):
    with running.client() as client:
        yield client
