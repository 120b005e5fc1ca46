"""What travels to a node: the program as one tar stream, and the script that receives it."""

from __future__ import annotations

import gzip
import hashlib
import io
import shlex
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from launcher.errors import (
    NodeError,
    PythonMissing,
    RemoteDirectoryError,
    UsageError,
)

_PACKAGES = ("perftest", "models")
_MARK = ".perftest-session"
# The script's first line of output: the login shell has got through its start-up files.
SHELL_MARKER = "perftest-script"

# Exit statuses of the script below; 76 is that of perftest/__init__.py.
_PYTHON_TOO_OLD = 76
_PLANTED = 82
_DIRECTORY_STATUSES = {80, 81, _PLANTED, 83, 84}
_NO_PYTHON = 85
# What the tools of the script say, in English, when the system refuses; the first that fits.
_SYSTEM_REASONS = (
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Not a directory",
    "Permission denied",
    "Input/output error",
)

# Both scripts run under the node's sh. They are the same for everybody and every run: directory,
# session, interpreter and size come on standard input, so that none of them shows in `ps`, and
# nothing of them is ever read as shell. `read` takes no byte past its line from a pipe. Every
# command ends in a separator, because the lines become one: a login shell may be csh, which takes
# no more.
_READ = r"""
umask 077;
printf "\n%s\n" perftest-script;
unset PYTHONSAFEPATH PYTHONHOME;
IFS= read -r PERFTEST_ROOT && IFS= read -r PERFTEST_SESSION &&
    IFS= read -r PERFTEST_PYTHON && IFS= read -r PERFTEST_SIZE ||
    { echo "perftest: the launcher went away" >&2; exit 80; };
export PERFTEST_ROOT PERFTEST_SESSION PERFTEST_PYTHON PERFTEST_SIZE;
exec sh -c
"""

# A shell of its own, so that the session stands in its environment, where `runtest clean` finds it.
# It stays behind the agent, so that its directory goes even if the agent is killed and nobody hears
# any more what the shell says of that (PIPE), or if Slurm asks every process to end (TERM). No
# program gets a path as an argument, not even for a moment: directories are entered, and the
# interpreter is found on PATH by its file's name, which is also all that shows of it later.
_WORK = r"""
fail() { printf "perftest: %s\n" "$2" >&2; exit "$1"; };
root=$PERFTEST_ROOT; session=$PERFTEST_SESSION; python=$PERFTEST_PYTHON; size=$PERFTEST_SIZE;
command -v -- "$python" >/dev/null 2>&1 || fail 85 "there is no interpreter $python";
run_python() {
    case $python in
        *:*) ;;
        /*/*) [ ! -x "$python" ] || { PATH=${python%/*}:$PATH; python=${python##*/}; } ;;
    esac;
    unset PERFTEST_PYTHON PERFTEST_SIZE;
    exec "$python" "$@";
};
[ -n "$root" ] || root=${TMPDIR:-/tmp};
case $root in /*) ;; *) root=$HOME/$root ;; esac;
PERFTEST_ROOT=${root%/};
me=$(id -u);
trusted() {
    set -- $(cd -P -- "$1" 2>/dev/null && ls -ldn .);
    [ "$3" = "$me" ] || [ "$3" = 0 ] || return 1;
    case $1 in
        ?????????[tT]*) ;;
        ????????w*) return 1 ;;
        ?????w*) [ "$4" = 0 ] || { [ "$3" = "$me" ] && [ "$4" = "$(id -g)" ]; } || return 1 ;;
    esac;
};
is_a_strange_link() {
    [ -L "$PERFTEST_ROOT" ] || return 1;
    set -- "$(run_python </dev/null
        -c "import os; print(os.lstat(os.environ[\"PERFTEST_ROOT\"]).st_uid)")";
    [ "$1" != "$me" ] && [ "$1" != 0 ];
};
[ -d "$root" ] || {
    why=$(run_python </dev/null -c "import os, sys;
        sys.excepthook = lambda kind, error, at:
            sys.stdout.write(\"perftest: %s\" % (getattr(error, \"strerror\", None) or error));
        os.makedirs(os.environ[\"PERFTEST_ROOT\"])");
    status=$?;
    [ -d "$root" ] || case $why in
        *perftest:*) fail 81 "cannot make the directory $root: ${why##*perftest: }" ;;
        *) exit $status ;;
    esac; };
cd -P -- "$root/" || fail 81 "cannot enter the directory $root";
trusted . && ! is_a_strange_link ||
    fail 82 "$root belongs to somebody else, or others may write there";
up=$(pwd -P);
while [ -n "$up" ]; do
    trusted "$up/" ||
        fail 82 "$up, above $root, belongs to somebody else, or others may write there";
    up=${up%/*};
done;
own=perftest-$me;
where=${root%/}/$own;
[ -d "$own" ] || LC_ALL=C mkdir -- "$own" || [ -d "$own" ] ||
    fail 81 "cannot make the directory $where";
[ ! -L "$own" ] && [ -O "$own" ] && chmod 700 -- "$own" ||
    fail 82 "$where was made by somebody else";
cd -P -- "./$own" && LC_ALL=C mkdir -- "$session" || fail 83 "cannot write in $where";
cd -P -- "./$session" || fail 83 "cannot write in $where";
leave() { cd -P .. && rm -rf -- "$session"; };
: >.perftest-session || { leave; fail 83 "cannot write in $where"; };
head -c "$size" | LC_ALL=C tar -xzf - || { leave; fail 84 "cannot unpack the program in $where"; };
trap "" PIPE;
[ -z "$SLURM_JOB_ID" ] || trap : TERM;
(trap - PIPE; unset PERFTEST_ROOT; run_python -m perftest.agent);
status=$?;
leave;
exit $status
"""


@dataclass(frozen=True)
class Payload:
    """The program as a compressed tar file, with its SHA-256 as a hexadecimal text."""

    data: bytes
    sha256: str


@cache
def make_payload() -> Payload:
    """Pack perftest/ and models/. The same files always give the same bytes."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, path in _files():
            data = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o600
            tar.addfile(entry, io.BytesIO(data))
    data = buffer.getvalue()
    return Payload(data, hashlib.sha256(data).hexdigest())


def _files() -> list[tuple[str, Path]]:
    """Name in the tar file and path, for every source file, sorted."""
    found: list[tuple[str, Path]] = []
    for package in _PACKAGES:
        root = source_folder(package) / package
        for path in sorted(root.rglob("*.py")):
            found.append((f"{package}/{path.relative_to(root).as_posix()}", path))
    return found


def source_folder(package: str) -> Path:
    """The folder that a package of ours lies in: beside this one. Nothing is imported."""
    folder = Path(__file__).parent.parent
    if not (folder / package / "__init__.py").is_file():
        raise UsageError(
            f"the package {package} is not installed beside the launcher", "install runtest again"
        )
    return folder


def script() -> str:
    """The script that a transport starts on a node, as one line."""
    return f"{_one_line(_READ)} {shlex.quote(_one_line(_WORK))}"


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.strip().splitlines())


def preamble(remote_dir: str, session: str, python: str, payload: Payload) -> bytes:
    """What the script reads first.

    Raises UsageError for a directory, interpreter or session that no line of text can hold.
    """
    for option, value in (("-r", remote_dir), ("--python", python), ("session", session)):
        if not value.isprintable():
            raise UsageError(f"{option} {value[:80]!r} has characters that do not print")
    fields = (remote_dir, session, python, str(len(payload.data)))
    return "".join(f"{field}\n" for field in fields).encode() + payload.data


def bootstrap_error(node: str, status: int | None, said: str) -> NodeError | None:
    """The failure that the script's exit status stands for, or None if it is none of its own."""
    lines = said.strip().splitlines() or [""]
    reason = lines[-1].removeprefix("perftest: ")
    if status in _DIRECTORY_STATUSES:
        why = next((why for why in _SYSTEM_REASONS if why in said and why not in reason), "")
        mend = "a directory of your own with -r" if status == _PLANTED else "another one with -r"
        return RemoteDirectoryError(node, f"{reason}: {why}" if why else reason, mend)
    if status == _NO_PYTHON:
        mend = "--python PATH, or python=PATH in the nodes file"
        return PythonMissing(node, reason, mend)
    if status == _PYTHON_TOO_OLD:
        mend = "--python PATH of a newer one, or python=PATH in the nodes file"
        return PythonMissing(node, reason, mend)
    return None
