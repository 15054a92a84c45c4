import pytest
from byte_strategies import NAMES

from bytelm.encoding import Encoding, get_encoding, kernels
from bytelm.encoding.reference import reference_coder

NATIVE = kernels._native


@pytest.fixture(params=NAMES, scope="session")
def encoding(request) -> Encoding:
    return get_encoding(request.param)


@pytest.fixture(scope="session")
def slow(encoding):
    """The slow, obvious coder of the same encoding."""
    return reference_coder(encoding)


@pytest.fixture(params=["native", "numpy"], scope="module")
def kernel(request):
    """Modules that use it run twice, with the native core and without."""
    if request.param == "native" and NATIVE is None:
        pytest.skip("the native core was not built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_native", NATIVE if request.param == "native" else None)
        yield request.param
