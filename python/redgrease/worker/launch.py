"""Runs a module of the worker in an interpreter in which the package is not installed.

``python -I launch.py redgrease=DIRECTORY:cloudpickle=DIRECTORY MODULE [ARGUMENTS]``. Of these directories, only the
named packages can be imported.
"""

import runpy
import sys
from importlib.machinery import PathFinder


class Finder:
    """Finds packages by name, each in its directory.

    Args:
        places: ``name=directory``, separated by colons.
    """

    def __init__(self, places):
        self._places = dict(place.split("=", 1) for place in places.split(":"))

    def find_spec(self, name, path=None, target=None):
        """Find a package; called by imports."""
        place = self._places.get(name)
        return None if place is None else PathFinder.find_spec(name, [place], target)


if __name__ == "__main__":
    _, places, module, *arguments = sys.argv
    sys.meta_path.insert(0, Finder(places))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
