"""What a module uses that a server cannot import either."""

OFFSET = 100


class Shifted:
    """A number that was moved."""

    def __init__(self, number):
        self.number = number + OFFSET


def shift(number):
    return Shifted(number).number
