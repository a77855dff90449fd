"""The worker: the process in which users' functions run, beside the server and never inside it.

Started by the module as ``python -m redgrease.worker --fd N``, where ``N`` is its end of a socket pair. Files:

- ``__main__``: what happens once, when the process starts;
- ``sessions``: what the server asks: run a script, rebuild a session, forget it;
- ``runtime``: the names that scripts find (module ``redisgears``, ``execute``, ``log``, ...);
- ``builder``: ``GearsBuilder``, and the check of every argument;
- ``pickling``, ``errors``: plans as bytes, and texts of errors.

Threads, transport and the execution of plans are native (``redgrease._native``). Everything here is imported by every
worker, so it imports little, and late.
"""
