"""What each source file imports, read from the source and from nothing else."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("launcher", "perftest", "models")

Sources = Mapping[str, str]
"""Path in the repository, as `launcher/cli.py`, -> text."""


@dataclass(frozen=True)
class Import:
    """One module that a file imports, wherever in the file: `perftest.protocol` at line 13."""

    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"

    @property
    def top(self) -> str:
        """The package that the module is in."""
        return self.module.partition(".")[0]


def read_sources() -> dict[str, str]:
    """All files of the three packages."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


def module_of(file: str) -> str:
    """`launcher/results/__init__.py` -> `launcher.results`."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def parse(text: str) -> ast.Module:
    """The syntax tree of a source text, made once."""
    return ast.parse(text)


def imports_of(file: str, sources: Sources) -> list[Import]:
    """Everything that a file imports: at its top, in functions, for type checkers, by name.

    `from a import b` is the module a.b where there is such a file, and the module a otherwise.
    A module whose name is only known when the program runs is called `?`, unless the name begins
    with that of the importing package.
    """
    ours = {module_of(name) for name in sources}
    found: list[Import] = []
    for node in ast.walk(parse(sources[file])):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = list(_from(node, file, ours))
        elif isinstance(node, ast.Call) and _is_import_call(node):
            modules = [_named(node, file)]
        else:
            continue
        found += [Import(file, node.lineno, module) for module in modules]
    return found


def all_imports(sources: Sources) -> list[Import]:
    """What all files import, in their order."""
    return [each for file in sources for each in imports_of(file, sources)]


def reachable(start: str, sources: Sources) -> list[str]:
    """A file and all of ours that are read when it is imported, packages' __init__ included."""
    by_module = {module_of(file): file for file in sources}
    found: list[str] = []
    waiting = [module_of(start)]
    while waiting:
        module = waiting.pop()
        file = by_module.get(module)
        if file is not None and file not in found:
            found.append(file)
            waiting += [each.module for each in imports_of(file, sources)]
        if "." in module:
            waiting.append(module.rpartition(".")[0])
    return found


def _from(node: ast.ImportFrom, file: str, ours: set[str]) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        package = module_of(file).split(".")
        if not file.endswith("/__init__.py"):
            package.pop()
        package = package[: len(package) - node.level + 1]
        base = ".".join([*package, *filter(None, [base])])
    for alias in node.names:
        module = f"{base}.{alias.name}"
        yield module if module in ours else base


def _is_import_call(node: ast.Call) -> bool:
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in ("import_module", "__import__", "run_module")


def _named(node: ast.Call, file: str) -> str:
    name = node.args[0] if node.args else None
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        return name.value
    if isinstance(name, ast.JoinedStr) and ast.unparse(name)[1:].strip("'\"").startswith(
        "{__name__}."
    ):
        return module_of(file)
    return "?"
