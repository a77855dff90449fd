"""Functions of a module that a server cannot import."""

from . import travelling_helpers
from .travelling_helpers import shift

FACTOR = 3


def times(number):
    return number * FACTOR


def shifted(number):
    """Uses two modules: one by a name, one as a module."""
    return shift(number) + travelling_helpers.OFFSET
