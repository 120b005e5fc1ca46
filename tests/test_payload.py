"""What travels to a node, and the script that receives it, run by the shells that nodes have."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher import payload
from launcher.errors import PythonMissing, RemoteDirectoryError, UsageError
from perftest import protocol
from perftest.protocol import Greet, Hello, Stop

GREETING = protocol.encode(Greet(protocol.VERSION, "s", ())) + protocol.encode(Stop())
root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of others")


def receive(
    directory: str, python: str = sys.executable, shell: str = "sh", session: str = "s1"
) -> subprocess.CompletedProcess[bytes]:
    """Run the script as sshd would: the user's shell is given one line."""
    line = "exec " + shlex.join(["sh", "-c", payload.script()])
    first = payload.preamble(directory, session, python, payload.make_payload())
    return subprocess.run(
        [shell, "-c", line], input=first + GREETING, capture_output=True, timeout=30
    )


def hello_of(done: subprocess.CompletedProcess[bytes]) -> Hello:
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[:2] == [payload.SHELL_MARKER.encode(), protocol.MARKER.encode()]
    message = protocol.decode(lines[2])
    assert isinstance(message, Hello)
    return message


def error_of(done: subprocess.CompletedProcess[bytes]) -> Exception | None:
    assert done.stdout.strip() == payload.SHELL_MARKER.encode()
    return payload.bootstrap_error("node1", done.returncode, done.stderr.decode())


def test_the_same_files_give_the_same_bytes() -> None:
    first = payload.make_payload()
    payload.make_payload.cache_clear()
    assert payload.make_payload() == first


def test_only_the_program_travels() -> None:
    with tarfile.open(fileobj=io.BytesIO(payload.make_payload().data)) as tar:
        names = tar.getnames()
    assert {name.split("/")[0] for name in names} == {"perftest", "models"}
    assert all(name.endswith(".py") for name in names)
    assert {"perftest/agent.py", "perftest/strategies/single.py", "models/resnet.py"} <= set(names)


def test_the_agent_greets_from_a_private_directory_and_leaves_nothing_in_it(
    tmp_path: Path,
) -> None:
    hello = hello_of(receive(str(tmp_path)))
    own = tmp_path / f"perftest-{os.getuid()}"
    assert hello.directory == str(own / "s1")
    assert own.stat().st_mode & 0o777 == 0o700
    assert list(own.iterdir()) == []


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "csh", "fish"])
def test_any_login_shell_will_do(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    hello_of(receive(str(tmp_path), shell=shell))


@pytest.mark.parametrize(
    "name", ["with space", "$(touch x)", "a;b", "quote'\"", "-rf", "`id`", "*", "ünï", "a\\nb"]
)
def test_a_directory_s_name_is_never_read_as_shell(tmp_path: Path, name: str) -> None:
    hello = hello_of(receive(str(tmp_path / name)))
    assert hello.directory == str(tmp_path / name / f"perftest-{os.getuid()}" / "s1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_no_directory_means_the_node_s_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert hello_of(receive("")).directory.startswith(str(tmp_path))


def test_a_relative_directory_is_one_of_the_user_s_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hello_of(receive("bench")).directory.startswith(str(tmp_path / "bench"))


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "csh", "fish"])
@pytest.mark.parametrize(
    ("directory", "why"),
    [
        ("/proc/nothing/here", "No such file or directory"),
        ("/dev/null/ünï 'x", "Not a directory"),
        (f"/tmp/{'x' * 300}", "File name too long"),
    ],
)
def test_a_directory_that_cannot_be_made_is_an_error_that_names_it_and_says_why(
    shell: str, directory: str, why: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    error = error_of(receive(directory, shell=shell))
    assert isinstance(error, RemoteDirectoryError)
    assert error.reason == f"cannot make the directory {directory}: {why}"


def test_an_interpreter_that_makes_no_directory_is_told_by_how_it_ends(tmp_path: Path) -> None:
    done = receive(str(tmp_path / "x"), python=shutil.which("false") or "false")
    assert error_of(done) is None, "the launcher says that it did not start the agent"
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert isinstance(error_of(receive(str(tmp_path / "x"))), RemoteDirectoryError)


def test_a_directory_where_everybody_may_write_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / "x"
    planted.mkdir()
    planted.chmod(0o777)
    error = error_of(receive(str(planted)))
    assert isinstance(error, RemoteDirectoryError)
    assert "others may write there" in str(error)
    planted.chmod(0o1777)  # as /tmp is
    hello_of(receive(str(planted)))


def test_a_directory_in_one_where_everybody_may_write_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "x" / "inner"
    inner.mkdir(parents=True, mode=0o700)
    inner.parent.chmod(0o777)
    error = error_of(receive(str(inner)))
    assert isinstance(error, RemoteDirectoryError)
    assert f"{inner.parent}, above {inner}, belongs to somebody else" in str(error)


@root_only
def test_a_directory_where_another_group_may_write_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / "x"
    planted.mkdir()
    planted.chmod(0o775)
    hello_of(receive(str(planted)))
    os.chown(planted, 0, 65534)
    assert isinstance(error_of(receive(str(planted))), RemoteDirectoryError)


def test_the_directory_goes_even_if_the_agent_is_killed(tmp_path: Path) -> None:
    first = payload.preamble(str(tmp_path), "s1", sys.executable, payload.make_payload())
    shell = subprocess.Popen(
        ["sh", "-c", payload.script()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(first)
    shell.stdin.flush()
    said = [shell.stdout.readline() for _ in range(4)]
    assert said[3] == protocol.MARKER.encode() + b"\n"
    children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert shell.wait(timeout=10) == 128 + signal.SIGKILL
    assert list((tmp_path / f"perftest-{os.getuid()}").iterdir()) == []
    shell.stdin.close()
    shell.stdout.close()


@root_only
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / "x"
    planted.mkdir()
    os.chown(planted, 65534, 65534)
    assert isinstance(error_of(receive(str(planted))), RemoteDirectoryError)


@root_only
def test_a_link_that_somebody_else_planted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    hello_of(receive(str(link)))
    os.lchown(link, 65534, 65534)
    assert isinstance(error_of(receive(str(link))), RemoteDirectoryError)


def test_a_link_in_the_place_of_our_own_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"perftest-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    assert isinstance(error_of(receive(str(tmp_path))), RemoteDirectoryError)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_session_that_is_there_already_is_not_touched(tmp_path: Path) -> None:
    other = tmp_path / f"perftest-{os.getuid()}" / "s1"
    other.mkdir(parents=True)
    (other / "precious").touch()
    assert isinstance(error_of(receive(str(tmp_path))), RemoteDirectoryError)
    assert (other / "precious").exists()


def test_a_missing_interpreter_is_an_error_that_names_it(tmp_path: Path) -> None:
    error = error_of(receive(str(tmp_path), python="/opt/none/bin/python3"))
    assert isinstance(error, PythonMissing)
    assert "there is no interpreter /opt/none/bin/python3" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_no_line_can_hold_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(UsageError):
        payload.preamble("/tmp/a\nb", "s", "python3", payload.make_payload())


def test_the_script_is_one_line_without_anything_of_a_user() -> None:
    assert "\n" not in payload.script()
    assert payload.script() == payload.script()


def test_a_launcher_that_vanishes_in_the_middle_of_the_copy_leaves_nothing(tmp_path: Path) -> None:
    first = payload.preamble(str(tmp_path), "s1", sys.executable, payload.make_payload())
    done = subprocess.run(
        ["sh", "-c", payload.script()], input=first[: len(first) // 2], capture_output=True
    )
    assert isinstance(error_of(done), RemoteDirectoryError)
    assert list((tmp_path / f"perftest-{os.getuid()}").iterdir()) == []


# What a shell would obey, if anything of it were read as shell. It would make a file.
PIECES = (
    *("$(touch $PWNED)", "`touch $PWNED`", ";touch $PWNED;", "&touch $PWNED&", "|touch $PWNED|"),
    *("'", '"', "\\", " ", "*", "?", "[a-z]", "-rf", "--", "/", "a", "ü", "$HOME", "~", "!", "#"),
    *("%s", "\\n", "<", ">", "(", ")", "{a,b}"),
)
UNPRINTABLE = ("\n", "\r", "\0", "\x1b[2J", "\udcff", "\u2028")
HARMFUL = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
REPEATABLE = settings(derandomize=True, max_examples=60, deadline=None, database=None)


def empty_payload() -> payload.Payload:
    """A program without files."""
    packed = io.BytesIO()
    tarfile.open(fileobj=packed, mode="w:gz").close()
    return payload.Payload(packed.getvalue(), "")


@REPEATABLE
@given(directory=HARMFUL, session=HARMFUL, python=HARMFUL | st.just("true"))
def test_neither_directory_nor_session_nor_interpreter_is_ever_executed(
    directory: str, session: str, python: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pwned = Path(folder) / "pwned"
        first = payload.preamble(f"{folder}/r/{directory}", session, python, empty_payload())
        done = subprocess.run(
            ["sh", "-c", payload.script()],
            input=first,
            capture_output=True,
            timeout=30,
            cwd=folder,
            env={**os.environ, "PWNED": str(pwned), "HOME": folder},
        )
        assert done.stdout.startswith(b"\n" + payload.SHELL_MARKER.encode())
        assert done.returncode != 80, "a line went elsewhere"
        assert not [path for path in Path(folder).rglob("*") if path.is_file()], done.stderr


@REPEATABLE
@given(
    words=st.tuples(HARMFUL, HARMFUL, HARMFUL),
    place=st.integers(0, 2),
    what=st.sampled_from(UNPRINTABLE),
)
def test_a_word_that_does_not_print_is_refused(
    words: tuple[str, str, str], place: int, what: str
) -> None:
    changed = [*words[:place], words[place] + what, *words[place + 1 :]]
    with pytest.raises(UsageError, match="has characters that do not print") as refused:
        payload.preamble(changed[0], changed[1], changed[2], empty_payload())
    assert str(refused.value).isprintable()
