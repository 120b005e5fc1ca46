"""Every message that the program can raise, read from its source: the words between its values."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher import errors

_CLASSES = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
# A NodeError names its node first; the message of the others stands first.
_AFTER_NODE = {name for name in _CLASSES if issubclass(getattr(errors, name), errors.NodeError)}


@dataclass(frozen=True)
class Message:
    """The literal parts of a message, and where it is raised."""

    file: str
    line: int
    parts: tuple[str, ...]

    @property
    def words(self) -> str:
        """Its longest run of words between two values."""
        return max((part.strip(" :;,.()'`") for part in self.parts), key=len, default="")


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
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            place = int(name in _AFTER_NODE)
            if name in _CLASSES and len(node.args) > place:
                for text in _texts(node.args[place], function):
                    yield Message(file, node.lineno, text)


def _texts(value: ast.expr, function: ast.FunctionDef) -> Iterator[tuple[str, ...]]:
    """The literal parts of a text, of each text that a name in it may stand for."""
    if isinstance(value, ast.Name):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and value.id in map(_name_of, node.targets):
                yield from _texts(node.value, function)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield (value.value,)
    elif isinstance(value, ast.JoinedStr):
        text = "".join(p.value if isinstance(p, ast.Constant) else "\0" for p in value.values)
        yield tuple(text.split("\0"))
    elif isinstance(value, ast.BinOp):
        yield from _texts(value.left, function)


def _name_of(target: ast.expr) -> str:
    return target.id if isinstance(target, ast.Name) else ""


def flat(text: str) -> str:
    """A text without line breaks and marks, so that words can be looked for in it."""
    return re.sub(r"\s+", " ", text.replace("`", "").replace("'", ""))
