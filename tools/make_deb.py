"""Build a Debian package from the newest wheel of a folder, with Debian's own tools (package dpkg-dev).

    python tools/make_deb.py dist dist     folder of the wheel, folder for the package

DEBFULLNAME and DEBEMAIL name the maintainer of the package, as for Debian's own tools.

The layout of the package:

    /usr/lib/redgrease                     a virtual environment of the system's Python, of any version
    /usr/lib/redgrease/python              the wheel and the Python packages that it needs
    /usr/lib/redgrease/libredgrease.so     link to the module in the wheel
    /usr/bin/redgrease                     link to the command
    /usr/lib/systemd/system/*.service.d    drop-ins for the units of Redis and Valkey
    /usr/share/man, /usr/share/doc         manual pages, copyright and changelog
    /usr/share/bash-completion, ...        completions for bash, zsh and fish
"""

import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"

#: Minor versions of Python 3 in which the environment is found: from Debian 12's on.
PYTHONS = range(11, 20)

#: What redis-py needs only on Python before 3.11.3, which Debian 12 has.
FURTHER = "async-timeout>=4"

#: The units of the server packages, which get a drop-in.
UNITS = ("redis-server", "redis-server@", "valkey-server", "valkey-server@")

PYVENV = """\
home = /usr/bin
include-system-site-packages = true
"""


def main(folder, output):
    wheels = sorted(Path(folder).glob("redgrease-*-abi3-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        sys.exit(f"no wheel in {folder}: make wheel")
    if shutil.which("dpkg-gencontrol") is None:
        sys.exit("dpkg-gencontrol is missing: apt-get install dpkg-dev")
    with tempfile.TemporaryDirectory(prefix="redgrease-deb-") as scratch:
        # dpkg-gencontrol reads debian/control of the working directory, and writes into the tree.
        source, tree = Path(scratch), Path(scratch, "debian/redgrease")
        shutil.copytree(PACKAGING / "debian", source / "debian")
        lay_out_environment(tree / "usr/lib/redgrease", wheels[-1])
        link(tree / "usr/bin/redgrease", "../lib/redgrease/bin/redgrease")
        for unit in UNITS:
            copy(PACKAGING / "systemd/redgrease.conf", tree / f"usr/lib/systemd/system/{unit}.service.d/redgrease.conf")
        lay_out_documentation(tree)
        lay_out_help(tree)
        maintainer = name_maintainer(source / "debian/control", os.environ)
        write_changelog(source / "debian/changelog", debian_version(wheels[-1]), maintainer)
        write_control(source, tree)
        run("dpkg-deb", "--build", "--root-owner-group", tree, Path(output).resolve())


def lay_out_environment(home, wheel):
    """Install the wheel and what it needs, so that the interpreter in `bin` and the module find each other."""
    python = home / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile")
    run(*pip, "--only-binary", ":all:", "--target", python, wheel.resolve(), FURTHER)
    command = home / "bin/redgrease"
    command.parent.mkdir()
    (python / "bin/redgrease").rename(command)
    shutil.rmtree(python / "bin")
    (home / "pyvenv.cfg").write_text(PYVENV)
    for name in ("python", "python3"):
        link(home / "bin" / name, "/usr/bin/python3")
    for minor in PYTHONS:
        link(home / f"lib/python3.{minor}/site-packages", "../../python")
    link(home / "libredgrease.so", "python/redgrease/lib/libredgrease.so")


def lay_out_documentation(tree):
    documents = tree / "usr/share/doc/redgrease"
    copy(PACKAGING / "debian/copyright", documents / "copyright")
    with gzip.GzipFile(documents / "changelog.gz", "wb", mtime=0) as packed:
        packed.write((ROOT / "CHANGELOG.md").read_bytes())


#: Where the shells of Debian look for completions.
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/redgrease",
    "zsh": "usr/share/zsh/vendor-completions/_redgrease",
    "fish": "usr/share/fish/vendor_completions.d/redgrease.fish",
}


def lay_out_help(tree):
    """Write what the command says of itself: its manual pages, and completions of shells."""
    command, pages = tree / "usr/lib/redgrease/bin/redgrease", tree / "usr/share/man/man1"
    run(command, "man", "--dir", pages)
    for page in sorted(pages.glob("*.1")):
        with gzip.GzipFile(f"{page}.gz", "wb", mtime=0) as packed:
            packed.write(page.read_bytes())
        page.unlink()
    for shell, place in COMPLETIONS.items():
        made = subprocess.run([command, "completions", shell], check=True, capture_output=True).stdout
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).write_bytes(made)


def debian_version(wheel):
    """Return the version of a wheel as Debian writes it: a development version is older than the release."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        version = HeaderParser().parsestr(archive.read(name).decode())["Version"]
    return re.sub(r"\.?(a|b|rc|dev)(?=\d)", r"~\1", version)


def name_maintainer(control, environment):
    """Write the maintainer that the environment names into the control file, and return who it is then."""
    text = control.read_text()
    name, address = re.search(r"^Maintainer: (.*) <(.*)>$", text, re.MULTILINE).groups()
    name, address = environment.get("DEBFULLNAME") or name, environment.get("DEBEMAIL") or address
    maintainer = f"{name} <{address}>"
    if not re.fullmatch(r"[^<>\n]+ <[^<>@\s]+@[^<>@\s]+>", maintainer):
        sys.exit(f"{maintainer!r} is no maintainer: set DEBFULLNAME to a name, and DEBEMAIL to an address")
    control.write_text(re.sub(r"^Maintainer: .*$", lambda _: f"Maintainer: {maintainer}", text, flags=re.MULTILINE))
    return maintainer


def write_changelog(path, version, author):
    """Write the entry that dpkg-gencontrol takes name and version from."""
    date = "Thu, 01 Jan 1970 00:00:00 +0000"
    path.write_text(
        f"redgrease ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {author}  {date}\n"
    )


def write_control(source, tree):
    """Write the control files; libraries that the binaries need become dependencies."""
    control = tree / "DEBIAN"
    control.mkdir()
    package = tree / "usr/lib/redgrease"
    binaries = [package / "bin/redgrease", *sorted(package.glob("python/**/*.so"))]
    run("dpkg-shlibdeps", "-Tdebian/substvars", *binaries, cwd=source)
    run("dpkg-gencontrol", "-predgrease", "-Tdebian/substvars", f"-P{tree}", cwd=source)
    for script in ("postinst", "prerm"):
        copy(PACKAGING / "debian" / script, control / script)
        (control / script).chmod(0o755)


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, path)


def run(*command, **options):
    print("+", *(str(word) for word in command[:5]), flush=True)
    subprocess.run([str(word) for word in command], check=True, timeout=600, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
