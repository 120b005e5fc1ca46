"""The nodes file: text -> Node records. A line is `hostname alias [key=value ...]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import NodesFileError

_HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z|[0-9A-Fa-f:.]+\Z")
_ALIAS = re.compile(r"[^\s\x00-\x20\x7f-\x9f-][^\s\x00-\x20\x7f-\x9f]*\Z")
_MAX_BYTES = 4 << 20
_MAX_NODES = 10_000
_MAX_NAME = 255


@dataclass(frozen=True)
class Node:
    """One machine of the test.

    hostname: the address that the other nodes use for TensorFlow's traffic.
    alias: how the transport reaches it (for ssh: what one types after `ssh`).
    where: file and line it was read from, for messages; empty for nodes from no file.
    python: the interpreter on the node, or None for the one given on the command line.
    gpus: how many of its GPUs may be used, or None for all that it has.
    first_port: first port for TensorFlow's servers, or None for the one of the command line.
    """

    hostname: str
    alias: str
    where: str = ""
    python: str | None = None
    gpus: int | None = None
    first_port: int | None = None

    @property
    def label(self) -> str:
        """The node as messages name it: `gpu3 (nodes, line 4)`."""
        return f"{self.alias} ({self.where})" if self.where else self.alias


def read_nodes(path: Path) -> list[Node]:
    """Read a nodes file.

    Raises NodesFileError, naming file and line, for anything that is not right in it.
    """
    name = _printable(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise NodesFileError(
            f"nodes file {name}: {getattr(error, 'strerror', None) or error}",
            "name a file with one `hostname alias` a line (nodes.example explains it), "
            "or leave out -h for this machine",
        ) from error
    if len(data) > _MAX_BYTES:
        raise NodesFileError(f"nodes file {name}: larger than {_MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise NodesFileError(f"{name}, line {line}: not UTF-8 text") from error
    return parse_nodes(text, name)


def parse_nodes(text: str, name: str) -> list[Node]:
    """Parse the text of a nodes file; `name` stands for the file in messages.

    Raises NodesFileError as read_nodes does.
    """
    name = _printable(name)
    nodes: list[Node] = []
    seen: dict[tuple[str, str], int] = {}
    for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        words = re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].split()
        if not words:
            continue
        where = f"{name}, line {number}"
        node = _parse_line(words, where)
        nodes.append(node)
        for key in (("hostname", node.hostname.lower()), ("alias", node.alias)):
            if key in seen:
                raise NodesFileError(
                    f"{where}: {key[0]} {_shown(key[1])} is listed twice "
                    f"(first on line {seen[key]})",
                    "give each machine one line; two nodes on one machine need two names for it",
                )
            seen[key] = number
        if len(nodes) > _MAX_NODES:
            raise NodesFileError(f"{where}: more than {_MAX_NODES:,} machines")
    if not nodes:
        raise NodesFileError(f"nodes file {name}: lists no machine", "add a `hostname alias` line")
    return nodes


def take_nodes(nodes: list[Node], count: int | None, name: str) -> list[Node]:
    """The first `count` nodes, or all for None.

    Raises NodesFileError when the file has fewer.
    """
    if count is None:
        return nodes
    if len(nodes) < count:
        last = nodes[-1].where
        raise NodesFileError(
            f"nodes file {_printable(name)}: lists {len(nodes)} machine{'s' * (len(nodes) != 1)}, "
            f"the last in {last}, but -n asks for {count}",
            f"-n {len(nodes)}, or add machines",
        )
    return nodes[:count]


def _printable(name: str) -> str:
    """A file name without what a terminal would act on."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _shown(text: str) -> str:
    """`text` as one short printable word in quotes, whatever it holds."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _parse_line(words: list[str], where: str) -> Node:
    hostname = words[0]
    if len(hostname) > _MAX_NAME or not _HOSTNAME.match(hostname):
        raise NodesFileError(f"{where}: {_shown(hostname)} is not a host name or address")
    if len(words) < 2 or "=" in words[1]:
        raise NodesFileError(
            f"{where}: no ssh alias after {_shown(hostname)}",
            "write `hostname alias`; the alias is what you type after `ssh`",
        )
    alias = words[1]
    if len(alias) > _MAX_NAME or not _ALIAS.match(alias) or not alias.isprintable():
        raise NodesFileError(f"{where}: {_shown(alias)} is not an ssh alias")
    values: dict[str, str] = {}
    for word in words[2:]:
        key, equals, value = word.partition("=")
        if not equals or key not in _KEYS:
            raise NodesFileError(
                f"{where}: unknown key {_shown(word)}",
                "the keys are " + ", ".join(f"{key}=" for key in _KEYS),
            )
        if key in values:
            raise NodesFileError(f"{where}: {key}= is given twice")
        values[key] = value
    return Node(
        hostname=hostname,
        alias=alias,
        where=where,
        python=_python(values.get("python"), where),
        gpus=_number(values, "gpus", 0, 1024, where),
        first_port=_number(values, "port", 1, 65279, where),
    )


_KEYS = ("python", "gpus", "port")


def _python(value: str | None, where: str) -> str | None:
    if value is None:
        return None
    if not value or value.startswith("-") or not value.isprintable():
        raise NodesFileError(f"{where}: python={_shown(value)} is not a path or command name")
    return value


def _number(values: dict[str, str], key: str, low: int, high: int, where: str) -> int | None:
    text = values.get(key)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,6}", text) or not low <= int(text) <= high:
        raise NodesFileError(f"{where}: {key}={_shown(text)} is not a number from {low} to {high}")
    return int(text)
