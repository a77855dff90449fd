"""Run a command with the environment in which bindgen finds libclang.

    python tools/with_libclang.py cargo build ...

A system installation (Debian: libclang-dev) is used as it is. Without one, the PyPI wheel `libclang` of the running
interpreter serves; it carries no compiler headers, so gcc's are added.
"""

import glob
import importlib.util
import os
import subprocess
import sys
from pathlib import Path


def system_libclang():
    """Say whether a libclang with its own headers is installed where bindgen looks."""
    if sys.platform == "darwin" or llvm_config_libclang():
        return True
    for library in glob.glob("/usr/lib*/llvm*/lib*/libclang*.so*") + glob.glob("/usr/lib/*/libclang*.so*"):
        home = Path(library).resolve().parent
        if glob.glob(f"{glob.escape(str(home))}/clang/*/include/stddef.h"):
            return True
    return bool(glob.glob("/usr/lib/llvm*/lib/clang/*/include/stddef.h") and glob.glob("/usr/lib/llvm*/lib/libclang*"))


def llvm_config_libclang():
    """Say whether the folder that llvm-config names holds libclang; the package llvm brings one without the other."""
    try:
        folder = subprocess.check_output(["llvm-config", "--libdir"], text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return False
    return bool(
        glob.glob(f"{glob.escape(folder)}/libclang.so*") + glob.glob(f"{glob.escape(folder)}/libclang-[0-9]*.so*")
    )


def wheel_libclang():
    """Return the folder of libclang.so in the PyPI wheel, or None."""
    package = importlib.util.find_spec("clang")
    for folder in (package.submodule_search_locations or ()) if package else ():
        native = Path(folder) / "native"
        if native.is_dir():
            return str(native)
    return None


def needed():
    """Say whether the PyPI wheel has to be installed to build."""
    return not os.environ.get("LIBCLANG_PATH") and not system_libclang()


def environment():
    """Return the variables to add for bindgen; empty when the system needs none."""
    if not needed():
        return {}
    native = wheel_libclang()
    if native is None:
        sys.exit(
            "libclang is missing (bindgen needs it to build the server module).\n"
            "  Debian, as root:  apt-get install libclang-dev\n"
            "  or, without root: .venv/bin/python -m pip install libclang"
        )
    variables = {"LIBCLANG_PATH": native}
    if "BINDGEN_EXTRA_CLANG_ARGS" not in os.environ:
        headers = subprocess.check_output(["gcc", "-print-file-name=include"], text=True).strip()
        variables["BINDGEN_EXTRA_CLANG_ARGS"] = f"-I{headers}"
    return variables


def main(arguments):
    if arguments == ["--needed"]:
        sys.exit(0 if needed() else 1)
    if not arguments:
        sys.exit("usage: with_libclang.py --needed | with_libclang.py COMMAND ARGUMENTS...")
    os.execvpe(arguments[0], arguments, {**os.environ, **environment()})


if __name__ == "__main__":
    main(sys.argv[1:])
