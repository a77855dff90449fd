"""The worker: the process in which users' functions run, beside the server and never inside it.

Started by the module as ``python -m redgrease.worker --fd N``, where ``N`` is its end of a socket pair. Files:

- ``__main__``: start of the process;
- ``sessions``: requests of the server: run a script, rebuild a session, delete it;
- ``runtime``: the names that scripts find (module ``redisgears``, ``execute``, ``log``, ...);
- ``builder``: ``GearsBuilder``: a plan of ``redgrease.plan``, and its run or registration;
- ``pickling``, ``errors``: serialized plans, and texts of errors.

Threads, transport and the execution of plans are native (``redgrease._native``). Every worker imports these
modules, so they import little, and late.
"""
