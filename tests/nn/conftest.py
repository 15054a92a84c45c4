"""Ways in which the native core may compute."""

import pytest

from bytelm.nn import native
from bytelm.nn.widened import has_unit

WAYS = ["vectors"] if native.core is None or not has_unit else ["pairs of bfloat16", "vectors"]


@pytest.fixture(params=WAYS)
def unit(request):
    """With the unit that multiplies pairs of bfloat16, where this processor has it, and as it is done elsewhere."""
    core = native.core
    if core is None:
        yield
        return
    before = core.pairs(request.param != "vectors")
    yield
    core.pairs(before)
