"""What can be wrong before a run, from end to end: the command ends in time, names every node that
cannot be used with reason and mend, and leaves nothing behind. One command meets many faults, each
on a node of its own; node0 is good."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Running
from faults import (
    SMALL,
    assert_nothing_left,
    assert_plain,
    nodes_and_config,
    rows_intact,
    run_to_end,
    said_of,
)
from hosts import NamespaceHosts, make_key

pytestmark = pytest.mark.network
PASSWORD_PORT, BANNER_PORT, NOBODYS_PORT = 2023, 2024, 2999
_PASSWD = Path("/etc/passwd")


@pytest.fixture(scope="module")
def many() -> Iterator[NamespaceHosts]:
    """Enough hosts for one fault each."""
    with NamespaceHosts(7) as made:
        yield made


def test_nodes_that_are_off_refuse_or_drop_packets_are_all_named(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    many.power_off(1, silent=True)
    many.run(3, ["ip", "route", "add", "blackhole", many.gateway])
    where = nodes_and_config(
        many, tmp_path, 4, ssh={2: f"Port {NOBODYS_PORT}", 4: f"HostName {many.free_address}"}
    )
    try:
        with rows_intact(tmp_path / "logs"):
            done = run_to_end(*SMALL, *where, cwd=tmp_path, within=10)
    finally:
        many.run(3, ["ip", "route", "del", "blackhole", many.gateway])
        many.start(1)
    said_of(
        done,
        node1=f"{many.hosts[1].address} port 22",  # no answer or no route, as the kernel sees it
        node2=f"connection refused by {many.hosts[2].address} port {NOBODYS_PORT}",
        node3=f"no answer from {many.hosts[3].address} port 22 within 6 s",
        node4=f"no route to {many.free_address} port 22",
    )
    assert_nothing_left(many)


def test_a_hundred_nodes_that_drop_packets_do_not_wait_for_each_other(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    net, _, _ = many.gateway.rpartition(".")
    behind = f"{net}.128/25"  # routed to node1, which drops what it is to pass on
    dark = [f"{net}.{number}" for number in range(130, 230)]
    options = nodes_and_config(many, tmp_path, 0)
    with (tmp_path / "nodes").open("a") as nodes:
        nodes.writelines(f"{address} {address}\n" for address in dark)
    config = tmp_path / "ssh_config"
    config.write_text(f"Host {net}.*\nConnectTimeout 2\n{config.read_text()}")
    many.run(1, ["ip", "route", "add", "blackhole", behind])
    subprocess.run(["ip", "route", "add", behind, "via", many.hosts[1].address], check=True)
    try:
        done = run_to_end(*SMALL, *options, cwd=tmp_path, within=7)
    finally:
        subprocess.run(["ip", "route", "del", behind], check=True)
        many.run(1, ["ip", "route", "del", "blackhole", behind])
    assert len(done.messages) == 100, done.stderr
    for address, message in zip(dark, done.messages, strict=True):
        assert f"no answer from {address} port 22 within 2 s" in message
    assert_nothing_left(many)


def test_nodes_that_do_not_let_us_in_are_all_named(many: NamespaceHosts, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    shutil.copy(many.key, tmp_path / "locked")
    words = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(tmp_path / "locked")]
    subprocess.run(words, check=True, capture_output=True)
    wrong = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "changed").write_text(f"{many.hosts[2].address} {wrong}\n")
    many.serve(4, PASSWORD_PORT, "PubkeyAuthentication no", "PasswordAuthentication yes")
    where = nodes_and_config(
        many,
        tmp_path,
        5,
        ssh={
            1: "UserKnownHostsFile /dev/null",
            2: f"UserKnownHostsFile {tmp_path}/changed",
            3: f"IdentityFile {tmp_path}/other",
            4: f"Port {PASSWORD_PORT}",
            5: f"IdentityFile {tmp_path}/locked",
        },
    )
    with rows_intact(tmp_path / "logs"):
        done = run_to_end(*SMALL, *where, cwd=tmp_path, within=10)
    said_of(
        done,
        node1=("is in no known_hosts file", "SHA256:"),
        node2=("the host key of", f"{tmp_path}/changed, line 1", "ssh-keygen -R"),
        node3="permission denied (1 key tried)",
        node4="asks for a password, which runtest never types",
        node5=("has a passphrase and the ssh agent does not hold it", "ssh-add"),
    )
    assert_nothing_left(many)


def program(hosts: NamespaceHosts, index: int, name: str, text: str) -> str:
    """An executable script in a host's own /tmp; returns its path there."""
    path = hosts.path(index, f"/tmp/{name}")
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"/tmp/{name}"


def test_interpreters_that_cannot_be_used_are_all_named(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    old = (
        "import sys, runpy; sys.version_info = (3, 8, 10, 'final', 0); sys.argv = sys.argv[2:]; "
        "sys.path[0] = ''; runpy.run_module('perftest.agent', run_name='__main__')"
    )
    pythons = {
        1: "/opt/none/bin/python3",
        2: program(
            many,
            2,
            "python3.8",
            f'[ "$1" != -c ] || exec {sys.executable} "$@"\nexec {sys.executable} -c "{old}" "$@"',
        ),
        3: program(many, 3, "bare", f'exec {sys.executable} -S "$@"'),
        4: "/bin/true",
        5: "/tmp",
        6: program(many, 6, "broken", "exec /opt/lib/ld-linux-none.so"),
    }
    keys = {index: f"python={path}" for index, path in pythons.items()}
    where = nodes_and_config(many, tmp_path, 6, keys=keys)
    with rows_intact(tmp_path / "logs"):
        done = run_to_end(*SMALL, *where, cwd=tmp_path, within=10)
    said_of(
        done,
        node1="there is no interpreter /opt/none/bin/python3",
        node2=("Python 3.10 or newer is needed", "3.8"),
        node3=("has no TensorFlow", "pip install tensorflow"),
        node4="/bin/true did not start the agent (status 0)",
        node5="/tmp did not start the agent (status 126): sh: 1: exec: /tmp: Permission denied",
        node6="/tmp/broken did not start the agent (status 127)",
    )
    assert_nothing_left(many)


def test_different_versions_of_tensorflow_are_told_before_any_task_starts(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    package = many.path(1, "/tmp/other/tensorflow-2.99.0.dist-info")
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.99.0\n")
    other = program(many, 1, "other-python", f'PYTHONPATH=/tmp/other exec {sys.executable} "$@"')
    where = nodes_and_config(many, tmp_path, 1, keys={1: f"python={other}"})
    with rows_intact(tmp_path / "logs"):
        done = run_to_end(*SMALL, *where, cwd=tmp_path, within=10)
    assert done.status == 2
    (message,) = done.messages
    assert "different versions of TensorFlow" in message
    assert "2.99.0 on node1" in message
    assert "starting" not in done.stderr, "a task was started"
    assert_nothing_left(many)


def test_remote_directories_that_cannot_be_used_are_all_named(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    remote = "/mnt/work/bench"

    small = "mkdir -p {0}; mount -t tmpfs -o mode=700,size={1} tmpfs {0}"
    for index, script in {
        1: "mkdir /mnt/work; mount -t tmpfs -o ro tmpfs /mnt/work",
        2: small.format(remote, "64k") + f"; head -c 1M /dev/zero >{remote}/full || true",
        3: small.format(remote, "128k"),  # full in the middle of the program
        4: f"mkdir -p {remote}; chmod 777 {remote}",
        5: f"mkdir -p /mnt/work /mnt/theirs; ln -s /mnt/theirs {remote}; chown -h 65534 {remote}",
        6: f"mkdir -p {remote}; chown 65534 {remote}",
    }.items():
        many.run(index, ["sh", "-ec", script])
    where = nodes_and_config(many, tmp_path, 6)
    with rows_intact(tmp_path / "logs"):
        done = run_to_end(*SMALL, *where, "-r", remote, cwd=tmp_path, within=10)
    said_of(
        done,
        node1=f"cannot make the directory {remote}: Read-only file system",
        node2=f"in {remote}/perftest-0: No space left on device",
        node3=f"cannot unpack the program in {remote}/perftest-0: No space left on device",
        node4="others may write there",
        node5="belongs to somebody else",
        node6="belongs to somebody else",
    )
    assert_nothing_left(many, remote=remote)


def log_in_as(hosts: NamespaceHosts, index: int, rc: str, login: str = "/bin/bash") -> None:
    """Give a host's root a home of its own with this ~/.bashrc, and a login shell."""
    home = hosts.path(index, "/tmp/home")
    home.mkdir(exist_ok=True)
    (home / ".bashrc").write_text(rc + "\n")
    passwd = re.sub("(?m)^root:.*", f"root:x:0:0:root:/tmp/home:{login}", _PASSWD.read_text())
    hosts.path(index, "/tmp/passwd").write_text(passwd)
    bind = "mountpoint -q /etc/passwd || mount --bind /tmp/passwd /etc/passwd"
    hosts.run(index, ["sh", "-ec", bind])


def test_login_shells_that_do_not_start_the_program_are_all_named(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    many.run(1, ["mkfifo", "/tmp/never"])
    log_in_as(many, 1, "read answer </tmp/never")
    log_in_as(many, 2, "echo 'no such host'; exit 3")
    log_in_as(many, 3, "yes")
    log_in_as(many, 4, "read -p 'Continue? ' answer")
    log_in_as(many, 5, "", login="/usr/sbin/nologin")
    log_in_as(many, 6, "exec /bin/false")
    where = nodes_and_config(many, tmp_path, 6)
    # This sshd signals no process of root. What waits goes on some day, and finds us gone.
    waited_for = os.open(many.path(1, "/tmp/never"), os.O_RDWR | os.O_NONBLOCK)
    try:
        with rows_intact(tmp_path / "logs"):
            done = run_to_end(*SMALL, *where, cwd=tmp_path, within=15)
    finally:
        os.write(waited_for, b"\n")
    said_of(
        done,
        node1="its login shell has not started the program within 10 s",
        node2="its login shell ended (status 3) before it started the program: no such host",
        node3="over 1 MiB of text came before the agent's first line",
        node4="a start-up file of the shell reads what was sent to the program",
        node5="ended (status 1) before it started the program: This account",
        node6="its login shell ended (status 1) before it started the program",
    )
    assert_nothing_left(many)
    os.close(waited_for)


@pytest.mark.tensorflow
def test_banners_a_broken_start_up_file_and_a_noexec_directory_do_not_end_a_run(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    remote = "/mnt/new/bench"  # on node0 it is made
    loud = r"printf '\033[2J\033]0;owned\007Welcome!\n{\"type\": \"hello\"}\nno line break'"
    log_in_as(many, 0, f"{loud}; {loud} >&2")
    (tmp_path / "banner").write_text("You are watched.\n\x1b[31mAll of you.\n")
    many.serve(0, BANNER_PORT, f"Banner {tmp_path}/banner")
    log_in_as(many, 1, "if then fi ((\n'")
    noexec = f"mkdir -p {remote}; mount -t tmpfs -o mode=700,noexec tmpfs {remote}"
    many.run(1, ["sh", "-ec", noexec])
    where = nodes_and_config(many, tmp_path, 1, ssh={0: f"Port {BANNER_PORT}"})
    with rows_intact(tmp_path / "logs", added=1):
        done = run_to_end(*SMALL, *where, "-r", remote, cwd=tmp_path, within=60)
        assert done.status == 0, done.stderr
    assert_plain(done)
    assert_nothing_left(many, remote=remote)


@pytest.mark.tensorflow
def test_two_launchers_on_the_same_nodes_at_the_same_time_both_finish(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    where = nodes_and_config(many, tmp_path, 1)
    with (
        rows_intact(tmp_path / "logs", added=2),
        Running(*SMALL, *where, cwd=tmp_path) as first,
        Running(*SMALL, *where, cwd=tmp_path) as second,
    ):
        assert (first.end(120.0), second.end(120.0)) == (0, 0), first.said + second.said
    assert_nothing_left(many)
