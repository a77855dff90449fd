"""Functions of a module that a server cannot import."""

FACTOR = 3


def times(number):
    return number * FACTOR
