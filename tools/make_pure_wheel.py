"""Make a wheel for any system from the newest wheel of a folder: its Python files, without what was compiled.

    python tools/make_pure_wheel.py dist dist     folder of the wheel, folder for the new one

It is a client of servers elsewhere, whose results are the texts and numbers of plain replies. The file cache,
`run_local` and the command need the other wheel. Needs the package wheel.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: The parts that are compiled, in an unpacked wheel.
COMPILED = ("redgrease/_native*.so", "redgrease-*.data", "redgrease-*.dist-info/sboms")


def main(folder, output):
    full = list(Path(folder).glob("redgrease-*-abi3-*.whl"))
    if not full:
        sys.exit(f"no wheel in {folder}: make wheel")
    with tempfile.TemporaryDirectory(prefix="redgrease-pure-") as scratch:
        run("unpack", "--dest", scratch, max(full, key=lambda path: path.stat().st_mtime))
        (tree,) = Path(scratch).iterdir()
        for pattern in COMPILED:
            remove(tree, pattern)
        (packed,) = tree.glob("*.dist-info/WHEEL")
        packed.write_text(packed.read_text().replace("Root-Is-Purelib: false", "Root-Is-Purelib: true"))
        run("pack", "--dest-dir", scratch, tree)
        (made,) = Path(scratch).glob("*.whl")
        run("tags", "--remove", "--python-tag", "py3", "--abi-tag", "none", "--platform-tag", "any", made)
        (made,) = Path(scratch).glob("*.whl")
        Path(output).mkdir(exist_ok=True)
        print(shutil.move(made, Path(output, made.name)))


def remove(tree, pattern):
    """Remove what a pattern names, of which there must be something: otherwise the layout of the wheel has changed."""
    found = list(tree.glob(pattern))
    if not found:
        sys.exit(f"the wheel has no {pattern}: see its layout in tools/wheel_backend.py")
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def run(*words):
    subprocess.run(
        [sys.executable, "-m", "wheel", *map(str, words)], check=True, timeout=300, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
