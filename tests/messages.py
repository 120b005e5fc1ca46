"""Every message that the program can raise, read from its source: the words between its values."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher import errors

_ERRORS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
# Who says something to a person, and which of its arguments that is. A NodeError names its node
# first; the message of the others stands first.
_PLACES = {
    **{name: int(issubclass(kind, errors.NodeError)) for name, kind in _ERRORS.items()},
    "Finding": 3,
    "ConfigError": 0,  # a UsageError that is at home in launcher/training
    # What a task or an agent says stands in the message of a TaskFailed or a NodeError.
    **dict.fromkeys(("AgentFailed", "Failed", "RuntimeError", "DataError"), 0),
    **dict.fromkeys(("CheckpointError", "TrainingDiverged"), 0),
    "ErrandFailed": 1,
}


@dataclass(frozen=True)
class Message:
    """The literal parts of a message, and where it is raised."""

    file: str
    line: int
    parts: tuple[str, ...]

    @property
    def words(self) -> str:
        """Its longest run of words between two values."""
        said, _, _ = "\0".join(self.parts).partition(". Try: ")
        return max((part.strip(" :;,.()'`") for part in said.split("\0")), key=len, default="")


def messages(root: Path, packages: tuple[str, ...]) -> Iterator[Message]:
    """The messages of all errors that are made in these packages, as far as their text stands in
    the call or in the function around it.
    """
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            for function in ast.walk(tree):
                if isinstance(function, ast.FunctionDef):
                    yield from _of_function(function, path.relative_to(root).as_posix())


def _of_function(function: ast.FunctionDef, file: str) -> Iterator[Message]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            place = _PLACES.get(called(node))
            if place is not None and len(node.args) > place:
                for text in _texts(node.args[place], function):
                    yield Message(file, node.lineno, text)


def called(call: ast.Call) -> str:
    """The name of what is called, without that of its module."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return _name_of(call.func)


def _texts(value: ast.expr, function: ast.FunctionDef) -> Iterator[tuple[str, ...]]:
    """The literal parts of a text, of each text that a name in it may stand for."""
    if isinstance(value, ast.Name):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and value.id in map(_name_of, node.targets):
                yield from _texts(node.value, function)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield (value.value,)
    elif isinstance(value, ast.JoinedStr):
        yield _parts(value)
    elif isinstance(value, ast.BinOp):
        yield from _texts(value.left, function)


def _parts(value: ast.JoinedStr) -> tuple[str, ...]:
    """What stands between the values of an f-string."""
    pieces = (str(p.value) if isinstance(p, ast.Constant) else "\0" for p in value.values)
    return tuple("".join(pieces).split("\0"))


def findings_without_mend(root: Path) -> Iterator[str]:
    """Where a finding is made that a person should do something about, and does not say what."""
    for path in sorted((root / "launcher").glob("findings*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and called(node) == "Finding":
                mark = ast.unparse(node.args[1])
                if mark != "OK" and len(node.args) < 5:
                    yield f"{path.name}:{node.lineno}"


def _name_of(target: ast.expr) -> str:
    return target.id if isinstance(target, ast.Name) else ""


def literals(root: Path, packages: tuple[str, ...]) -> list[str]:
    """All texts in the source but the docstrings, and what stands between the values in them."""
    found = []
    for package in packages:
        for path in (root / package).rglob("*.py"):
            for node in _without_docstrings(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found += _parts(node)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def _without_docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return (node for node in ast.walk(tree) if id(node) not in alone)


def flat(text: str) -> str:
    """A text without line breaks and marks, so that words can be looked for in it."""
    return re.sub(r"\s+", " ", text.replace("`", "").replace("'", ""))
