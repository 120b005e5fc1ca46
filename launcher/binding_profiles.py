"""Bindings by name: the profiles of bindings.ini and of a user's file, from text to Binding."""

from __future__ import annotations

import configparser
import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from launcher.binding import PER_WORKER, Binding, check_cpu_bind
from launcher.errors import UsageError

SHIPPED = Path(__file__).with_name("bindings.ini")

_MOST_BYTES = 1 << 20
_MOST_THREADS = 4096
_KEYS = ("about", "like", "cpu-bind", "intra-op-threads", "inter-op-threads")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
# What runtest itself sets, and what Python must not lose.
_OURS = re.compile(
    r"(PERFTEST_|PYTHON).*|PATH|CUDA_VISIBLE_DEVICES|KERAS_BACKEND|TF_CONFIG|TF_ENABLE_ONEDNN_OPTS"
)

Sections = Mapping[str, Mapping[str, str]]


class BindingError(UsageError):
    """A file of bindings, or the name of one, cannot be used as it is."""


def find(name: str, file: Path | None = None) -> Binding:
    """The binding of that name, from a user's file or else from ours. Raises BindingError."""
    shipped = read(SHIPPED)
    theirs = read(file) if file is not None else {}
    known = sorted({*shipped, *theirs})
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise BindingError(
            f"--binding {name[:60]!a} is none of {', '.join(known)}",
            f"--binding {near[0]}" if near else f"a profile of {SHIPPED}, or --binding-file",
        )
    where = f"{file if name in theirs else SHIPPED}, [{name}]"
    return make(name, _inherited(name, theirs, shipped, where), where)


def read(path: Path) -> Sections:
    """The sections of a file. Raises BindingError."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BindingError(
            f"--binding-file {path}: {error.strerror}", f"a file like {SHIPPED}"
        ) from error
    if len(content) > _MOST_BYTES:
        raise BindingError(f"{path} is larger than any file of bindings", f"one like {SHIPPED}")
    try:
        return parse(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise BindingError(f"{path} is no UTF-8 text", f"a file like {SHIPPED}") from error


def parse(text: str, where: str) -> Sections:
    """Profiles by name. Raises BindingError with the line that is none."""
    parser = configparser.ConfigParser(
        interpolation=None, default_section="", delimiters=("=",), comment_prefixes=("#", ";")
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text, where)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next(
            (number for number, _ in getattr(error, "errors", ())), 0
        )
        what = {
            configparser.DuplicateSectionError: "a profile that is there twice",
            configparser.DuplicateOptionError: "a key that is there twice",
            configparser.MissingSectionHeaderError: "a line before the first [profile]",
        }.get(type(error), "neither [profile] nor key = value")
        raise BindingError(f"{where}, line {line}: {what}", f"a file like {SHIPPED}") from error
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _inherited(name: str, theirs: Sections, shipped: Sections, where: str) -> dict[str, str]:
    """The keys of a profile on top of those that it begins with.

    Ours know of none but ours; a profile of the user's may begin with ours of the same name.
    """
    chain: list[Mapping[str, str]] = []
    seen: set[tuple[str, bool]] = set()
    current, is_theirs = name, name in theirs
    while True:
        if (current, is_theirs) in seen:
            raise BindingError(f"{where}: like {current!a} leads back to itself", "another profile")
        seen.add((current, is_theirs))
        keys = (theirs if is_theirs else shipped)[current]
        chain.append(keys)
        following = keys.get("like", "")
        if not following:
            break
        is_theirs = is_theirs and following in theirs and following != current
        if not is_theirs and following not in shipped:
            raise BindingError(
                f"{where}: like {following[:60]!a} is no profile",
                f"one of {', '.join(sorted({*shipped, *theirs}))}",
            )
        current = following
    merged: dict[str, str] = {}
    for keys in reversed(chain):
        merged.update(keys)
    return merged


def make(name: str, keys: Mapping[str, str], where: str) -> Binding:
    """The binding that a profile's keys describe. Raises BindingError with the key."""
    variables = {}
    for key, value in keys.items():
        if key in _KEYS:
            continue
        _check_variable(key, value, where)
        if value:
            variables[key] = value
    return Binding(
        name=name,
        cpu_bind=check_cpu_bind(keys.get("cpu-bind") or "auto", f"{where}: cpu-bind"),
        intra_op_threads=_threads("intra-op-threads", keys, where),
        inter_op_threads=_threads("inter-op-threads", keys, where),
        environment=variables,
    )


def _check_variable(key: str, value: str, where: str) -> None:
    if not _VARIABLE.fullmatch(key):
        near = difflib.get_close_matches(key, _KEYS, n=1)
        raise BindingError(
            f"{where}: {key[:60]!a} is neither a key nor a variable in capitals",
            near[0] if near else f"one of {', '.join(_KEYS)}, or KMP_BLOCKTIME",
        )
    if _OURS.fullmatch(key):
        raise BindingError(f"{where}: {key} is set by runtest itself", "leave it out")
    if not value.isprintable() or len(value) > 4096:
        raise BindingError(f"{where}: the value of {key} does not print", "one line of text")


def _threads(key: str, keys: Mapping[str, str], where: str) -> int | str:
    value = keys.get(key) or "0"
    if value in PER_WORKER:
        return value
    if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > _MOST_THREADS:
        raise BindingError(
            f"{where}: {key} {value[:40]!a} is no number of threads",
            f"a number up to {_MOST_THREADS}, cpus or cores",
        )
    return int(value)
