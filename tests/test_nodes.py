"""The nodes file: what is read, and what is refused with file and line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import NodesFileError
from launcher.nodes import Node, parse_nodes, read_nodes, take_nodes

READ = {
    "one": ("10.0.0.1 gpu1\n", [("10.0.0.1", "gpu1")]),
    "no final newline": ("10.0.0.1 gpu1", [("10.0.0.1", "gpu1")]),
    "CRLF": ("a x\r\nb y\r\n", [("a", "x"), ("b", "y")]),
    "blank lines": ("\n\na x\n  \t \nb y\n\n", [("a", "x"), ("b", "y")]),
    "comments": ("# all\na x # first\n  # more\nb y\t#z\n", [("a", "x"), ("b", "y")]),
    "hash inside a word": ("a x#1\n", [("a", "x#1")]),
    "tabs and spaces": ("\ta \t x  \n", [("a", "x")]),
    "IPv6": ("fe80::1 gpu1\n", [("fe80::1", "gpu1")]),
    "user in the alias": ("a me@gpu1\n", [("a", "me@gpu1")]),
    "name with a final dot": ("gpu1.example.org. gpu1\n", [("gpu1.example.org.", "gpu1")]),
    "hostname and alias the same": ("gpu1 gpu1\ngpu2 gpu2\n", [("gpu1", "gpu1"), ("gpu2", "gpu2")]),
    "alias of one is hostname of another": ("a b\nb a\n", [("a", "b"), ("b", "a")]),
    "upper-case alias": ("a X\nb x\n", [("a", "X"), ("b", "x")]),
}

REFUSED = {
    "empty": ("", "no machine", None),
    "only comments": ("# a x\n\n", "no machine", None),
    "missing alias": ("a x\nb\n", "no ssh alias", 2),
    "key in place of the alias": ("a gpus=2\n", "no ssh alias", 1),
    "alias that is an option": ("a -oProxyCommand=id\n", "alias", 1),
    "alias that is an option without a key": ("a -v\n", "not an ssh alias", 1),
    "hostname that is an option": ("-a x\n", "host name", 1),
    "hostname with a shell in it": ("$(id) x\n", "host name", 1),
    "control character in the hostname": ("a\x1b[31m x\n", "host name", 1),
    "control character in the alias": ("a x\x07\n", "not an ssh alias", 1),
    "alias that is written backwards": ("a \u202ex\n", "not an ssh alias", 1),
    "unknown key": ("a x\nb y cpus=2\n", "unknown key", 2),
    "third word": ("a x y\n", "unknown key", 1),
    "key without a name": ("a x =2\n", "unknown key", 1),
    "key in capitals": ("a x GPUS=2\n", "unknown key", 1),
    "key twice": ("a x gpus=2 gpus=2\n", "twice", 1),
    "hostname twice": ("a x\n\nb y\na z\n", "hostname 'a' is listed twice", 4),
    "hostname twice in other letters": ("gpu1 x\nGPU1 y\n", "listed twice", 2),
    "alias twice": ("a x\nb x\n", "alias 'x' is listed twice", 2),
    "gpus not a number": ("a x gpus=two\n", "gpus='two'", 1),
    "gpus negative": ("a x gpus=-1\n", "gpus='-1'", 1),
    "gpus empty": ("a x gpus=\n", "gpus=''", 1),
    "gpus too many": ("a x gpus=1025\n", "from 0 to 1024", 1),
    "gpus in other digits": ("a x gpus=\u0663\n", "not a number", 1),
    "gpus very long": ("a x gpus=" + "9" * 9999 + "\n", "not a number", 1),
    "port zero": ("a x port=0\n", "from 1 to", 1),
    "port too high": ("a x port=65536\n", "from 1 to", 1),
    "python empty": ("a x python=\n", "python=''", 1),
    "python an option": ("a x python=-c\n", "not a path", 1),
    "zero byte": ("a\0 x\n", "host name", 1),
    "very long line": ("a" * 100_000 + "! x\n", "host name", 1),
}


@pytest.mark.parametrize(("text", "expected"), READ.values(), ids=READ.keys())
def test_good_files_are_read(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(node.hostname, node.alias) for node in parse_nodes(text, "nodes")] == expected


@pytest.mark.parametrize(("text", "words", "line"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_files_are_refused(text: str, words: str, line: int | None) -> None:
    with pytest.raises(NodesFileError) as caught:
        parse_nodes(text, "my-nodes")
    message = str(caught.value)
    assert words in message
    assert (f"my-nodes, line {line}:" if line else "my-nodes") in message
    assert message.isprintable()
    assert len(message) < 400
    assert caught.value.exit_status == 2


def test_every_key_is_read() -> None:
    (node,) = parse_nodes("a x python=/opt/py/bin/python3.11 gpus=0 port=2300\n", "nodes")
    where = "nodes, line 1"
    assert node == Node("a", "x", where, "/opt/py/bin/python3.11", 0, 2300)
    assert node.label == "x (nodes, line 1)"


@pytest.mark.parametrize(("count", "taken"), [(None, 3), (1, 1), (2, 2), (3, 3)])
def test_first_nodes_are_taken(count: int | None, taken: int) -> None:
    nodes = parse_nodes("a x\nb y\nc z\n", "nodes")
    assert take_nodes(nodes, count, "nodes") == nodes[:taken]


def test_fewer_machines_than_asked_for_names_file_and_line() -> None:
    with pytest.raises(NodesFileError) as caught:
        take_nodes(parse_nodes("a x\n\nb y\n", "nodes"), 3, "nodes")
    assert "nodes, line 3" in str(caught.value)
    assert "-n asks for 3" in str(caught.value)


FILES = {
    "binary": (b"\x7fELF\xff\xfe\n", "line 1: not UTF-8"),
    "binary on a later line": (b"a x\nb y\xff\n", "line 2: not UTF-8"),
    "UTF-16": ("a x\n".encode("utf-16"), "not UTF-8"),
    "huge": (b"#" * (5 << 20), "larger than"),
    "empty": (b"", "no machine"),
}


@pytest.mark.parametrize(("data", "words"), FILES.values(), ids=FILES.keys())
def test_what_is_no_nodes_file_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "nodes"
    path.write_bytes(data)
    with pytest.raises(NodesFileError) as caught:
        read_nodes(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    path.write_bytes(b"\xef\xbb\xbfa x\n")
    assert read_nodes(path)[0].hostname == "a"


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        with pytest.raises(NodesFileError) as caught:
            read_nodes(path)
        assert words in str(caught.value)
        assert str(path) in str(caught.value)


UNREADABLE = """
import os, sys
from pathlib import Path
from launcher.errors import NodesFileError
from launcher.nodes import read_nodes
if os.getuid() == 0:
    os.setuid(65534)
try:
    read_nodes(Path("nodes"))
except NodesFileError as error:
    print(error)
"""


def test_file_without_permission_is_refused(tmp_path: Path) -> None:
    # Root may read everything, so that another user must try; relative, as tmp_path is private.
    path = tmp_path / "nodes"
    path.write_text("a x\n")
    path.chmod(0)
    tmp_path.chmod(0o755)
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", UNREADABLE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert "nodes file nodes: Permission denied" in done.stdout, done.stderr


LINES = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.builds(" ".join, st.lists(st.sampled_from(["a", "b", "x", "gpus=1", "port=0", "#"]))),
    )
).map("\n".join)


def read_or_refused(read: Callable[[], list[Node]]) -> tuple[list[Node], str]:
    """The nodes, or none and the message; anything but a NodesFileError passes through."""
    try:
        return read(), ""
    except NodesFileError as error:
        return [], str(error)


@given(st.one_of(st.text(), LINES), st.text(max_size=20))
def test_any_text_is_read_or_refused_in_one_printable_line(text: str, name: str) -> None:
    nodes, message = read_or_refused(lambda: parse_nodes(text, name))
    assert message.isprintable()
    assert bool(nodes) != bool(message)
    for node in nodes:
        assert node.label.isprintable()
        assert not node.alias.startswith("-")


def test_file_name_with_control_characters_is_not_printed_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\nb\udcff"
    for data in (None, b"", b"\xff", b"a\n"):
        if data is not None:
            path.write_bytes(data)
        assert read_or_refused(lambda: read_nodes(path))[1].isprintable()
    nodes = parse_nodes("a x", str(path))
    with pytest.raises(NodesFileError) as caught:
        take_nodes(nodes, 2, str(path))
    assert str(caught.value).isprintable()


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "wb") as file:
        file.write(data[:60_000])
    assert read_or_refused(lambda: read_nodes(Path(f"/proc/self/fd/{read}")))[1].isprintable()
    os.close(read)
