import pytest

from .server import Server


@pytest.fixture
def server():
    with Server() as one:
        yield one
