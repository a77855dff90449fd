"""Plans: reader, steps and how they are run, as the server reads them, and the callbacks of the steps.

Used on both sides: the worker's ``GearsBuilder`` builds the plans of scripts, the client those of function objects.

- ``builder``: the operations, and the plan that comes out;
- ``arguments``: the check of every argument;
- ``options``: the keywords of ``run`` and ``register``;
- ``sources``: functions of ours that make records in a worker.

Every worker imports these modules, so they import little. All but ``options`` need
``redgrease._native``.
"""
