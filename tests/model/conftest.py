import pytest
from support import LAWS, tiny_model, trained_model


@pytest.fixture(scope="session", params=LAWS, ids=lambda p: f"{p[0]}-{p[1]}{'-tables' if p[2] else ''}")
def law_and_model(request):
    """Every law of every kind of heads, without and with tables, on random weights."""
    law, kind, tables = request.param
    return law, tiny_model(kind, tables)


@pytest.fixture(scope="session", params=["independent", "chained"])
def trained(request):
    """Models that know a little, so that their drafts are neither all right nor all wrong; and their encoding."""
    return trained_model(request.param)
