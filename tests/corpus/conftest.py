import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk():
    """Thousands of small files are not to survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
