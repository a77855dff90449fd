#!/usr/bin/env bash
# Runs `make quickstart` and `make test` in a bare Debian system with nothing but what README.md asks for.
#
#   tools/bare.sh [OPTION]... [TARGET]...      targets of make; default: quickstart test
#
#   --suite NAME     release of Debian (default: bookworm)
#   --mirror URL     where its packages come from (default: http://deb.debian.org/debian)
#   --env NAME       pass an environment variable on, for example of a proxy or a package index; may be repeated
#   --file PATH      copy a file of this system to the same path, for example a certificate; may be repeated
#   --keep           do not remove the system at the end
#
# The system is made by debootstrap in a temporary directory (about 2 GB with what is built). It gets the packages below and
# cargo, rustc, rustdoc and the standard library of the Rust toolchain in use here: the least that rustup installs. The
# targets run in an export of HEAD, as an ordinary user, with an empty home directory and no environment but HOME, PATH,
# LANG and what --env names. Mounts and processes are in namespaces of their own and end with the script. Needs root and
# debootstrap; skipped without.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=gcc,libc6-dev,make,python3,python3-venv,ca-certificates
TARGET_SECONDS_MAX=3600

usage() {
    echo "$1; the options are in the first lines of tools/bare.sh" >&2
    exit 2
}

suite=bookworm
mirror=http://deb.debian.org/debian
keep=
variables=()
files=()
targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --suite) suite=$2 && shift 2 ;;
        --mirror) mirror=$2 && shift 2 ;;
        --env) [ -n "${!2+set}" ] || usage "--env $2: this variable is not set"
            variables+=("$2=${!2}") && shift 2 ;;
        --file) files+=("$(realpath --no-symlinks -- "$2")") && shift 2 ;;
        --keep) keep=yes && shift ;;
        -*) usage "unknown option '$1'" ;;
        *) targets+=("$1") && shift ;;
    esac
done
[ ${#targets[@]} -gt 0 ] || targets=(quickstart test)

skip() {
    echo "SKIPPED the build in a bare system: $1"
    exit 0
}
[ "$(id -u)" = 0 ] || skip "it needs root"
command -v debootstrap >/dev/null || skip "debootstrap is not installed: apt-get install debootstrap"
unshare --mount --pid --fork true 2>/dev/null || skip "this system allows no mount and process namespaces"

toolchain=$(rustc --print sysroot)
if [ "$toolchain" = /usr ] || [ ! -x "$toolchain/bin/cargo" ]; then
    skip "it copies the Rust toolchain, and $toolchain is not one in a directory of its own, as rustup makes"
fi

system=$(mktemp -d "${TMPDIR:-/tmp}/redgrease-bare-XXXXXX")
chmod 755 "$system"
remove() {
    if [ -n "$keep" ]; then echo "kept: $system"; else rm -rf --one-file-system "$system"; fi
}
trap remove EXIT
trap 'exit 130' INT TERM HUP

echo "== Debian $suite with ${PACKAGES//,/ }; $(rustc --version); commit $(git rev-parse --short HEAD)"
began=$SECONDS
if ! debootstrap --variant=minbase --include="$PACKAGES" "$suite" "$system" "$mirror" >"$system.log" 2>&1; then
    tail -n 20 "$system.log" >&2
    echo "debootstrap failed; all it said: $system.log" >&2
    exit 1
fi
rm "$system.log"
mkdir -p "$system/opt/rust/bin"
cp -a --reflink=auto "$toolchain/lib" "$system/opt/rust/"
cp -a --reflink=auto "$toolchain"/bin/{cargo,rustc,rustdoc} "$system/opt/rust/bin/"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$system/etc/hosts"
for file in "${files[@]}"; do
    mkdir -p "$system$(dirname "$file")"
    cp --dereference "$file" "$system$file"
done
chroot "$system" useradd --create-home builder
mkdir "$system/home/builder/redgrease"
git archive HEAD | tar -x -C "$system/home/builder/redgrease"
chroot "$system" chown -R builder: /home/builder
echo "== made in $((SECONDS - began)) s"

for target in "${targets[@]}"; do
    echo "== make $target"
    TIMEFORMAT="== make $target: %0R s, %0U + %0S s of processor time"
    # --kill-child: nothing that the target started outlives it.
    if ! time unshare --mount --pid --fork --kill-child --propagation private bash -euo pipefail -c '
        system=$1 && shift
        mount -t proc proc "$system/proc"
        mount -t tmpfs -o mode=1777 shm "$system/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$system/dev/pts"
        chroot --userspec=builder:builder "$system" env --default-signal -i "$@"
    ' bash "$system" HOME=/home/builder PATH=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 "${variables[@]}" \
        timeout --kill-after=10 "$TARGET_SECONDS_MAX" make -C /home/builder/redgrease "$target" </dev/null; then
        echo "== make $target FAILED" >&2
        exit 1
    fi
done
