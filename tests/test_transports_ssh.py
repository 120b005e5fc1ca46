"""What ssh_config, known_hosts, keys and the network can do to the ssh transport: real sshds."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hosts import NamespaceHosts, make_key
from waiting import eventually

from launcher.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyUnknown,
    NodeError,
    SshConfigError,
    Unreachable,
)
from launcher.nodes import Node
from launcher.transports.ssh import SshTransport

pytestmark = pytest.mark.network
OTHER_PORT, PASSWORD_PORT, TWO_STEP_PORT, FULL_PORT = 2022, 2023, 2024, 2025


@dataclass
class Bench:
    """The hosts, and a folder in which a test writes its own ssh_config and known_hosts."""

    hosts: NamespaceHosts
    folder: Path
    warnings: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def known(self) -> Path:
        return self.folder / "known"

    def address(self, index: int = 0) -> str:
        return self.hosts.hosts[index].address

    def write(self, known: str, *options: str, first: str = "") -> None:
        """known_hosts, and a config that reaches node0 and node1 with `options` before all else."""
        self.known.write_text(known)
        lines = [
            first,
            *options,
            *("Host node0", f"HostName {self.address(0)}"),
            *("Host node1", f"HostName {self.address(1)}"),
            *("Host *", "User root", f"IdentityFile {self.hosts.key}", "IdentitiesOnly yes"),
            *("IdentityAgent none", f"UserKnownHostsFile {self.known}"),
            *("GlobalKnownHostsFile /dev/null", "StrictHostKeyChecking yes"),
        ]
        self.config.write_text("\n".join(lines) + "\n")

    def knows(self, *indices: int) -> str:
        """Right known_hosts lines."""
        return "".join(f"{self.address(i)} {self.hosts.host_key(i)}\n" for i in indices)

    def transport(self, seconds: float = 8.0) -> SshTransport:
        return SshTransport(self.config, seconds, self.warnings.append)

    def says(self, alias: str = "node0", script: str = "hostname") -> str:
        """What `script` prints on the node."""
        transport = self.transport()
        connection = transport.open(Node("x", alias, "nodes, line 7"), script)
        try:
            return b"".join(iter(connection.receive, b"")).decode().strip()
        finally:
            connection.close()
            transport.close()

    def fails(self, kind: type[NodeError], alias: str = "node0") -> NodeError:
        """The failure to open, which is of this kind, one printable line, and names the node."""
        before = threading.active_count()
        transport = self.transport(4.0)
        with pytest.raises(NodeError) as caught:
            transport.open(Node("x", alias, "nodes, line 7"), "echo never")
        transport.close()
        error = caught.value
        assert type(error) is kind, str(error)
        assert error.node == f"{alias} (nodes, line 7)"
        assert str(error).isprintable()
        end = time.monotonic() + 2
        while threading.active_count() > before and time.monotonic() < end:
            time.sleep(0.01)
        assert threading.active_count() <= before, "a thread is left"
        return error


@pytest.fixture
def bench(hosts: NamespaceHosts, tmp_path: Path) -> Bench:
    made = Bench(hosts, tmp_path)
    made.write(made.knows(0, 1))
    return made


@pytest.fixture(scope="module")
def other_ports(hosts: NamespaceHosts) -> None:
    """More sshds on node0: on another port; wanting a password; a key and a password; full."""
    hosts.serve(0, OTHER_PORT)
    hosts.serve(0, PASSWORD_PORT, "PubkeyAuthentication no", "PasswordAuthentication yes")
    both = "AuthenticationMethods publickey,password"
    hosts.serve(0, TWO_STEP_PORT, both, "PasswordAuthentication yes")
    hosts.serve(0, FULL_PORT, "MaxStartups 2:60:30")


@pytest.fixture
def another_key(tmp_path: Path) -> str:
    make_key(tmp_path / "another")
    return " ".join((tmp_path / "another.pub").read_text().split()[:2])


def hashed(bench: Bench) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(bench.known)], check=True)
    assert bench.address() not in bench.known.read_text()


# Host keys.


def test_known_key_is_accepted(bench: Bench) -> None:
    assert bench.says() == "node0"
    assert bench.warnings == []


@pytest.mark.parametrize("strict", ["yes", "ask"])
def test_unknown_key_is_refused(bench: Bench, strict: str) -> None:
    bench.write(bench.knows(1), f"StrictHostKeyChecking {strict}")
    error = bench.fails(HostKeyUnknown)
    assert "SHA256:" in error.reason
    assert f"{bench.config}" in error.mend or "ssh-keyscan" in error.mend


def test_unknown_key_is_accepted_once_the_mend_was_typed(bench: Bench) -> None:
    bench.write("# nothing\n")
    error = bench.fails(HostKeyUnknown)
    assert error.mend.startswith("ssh-keyscan")
    subprocess.run(["sh", "-c", error.mend], check=True, capture_output=True)
    assert bench.says() == "node0"


def test_mend_for_another_port_works(bench: Bench, other_ports: None) -> None:
    bench.write("", f"Port {OTHER_PORT}")
    error = bench.fails(HostKeyUnknown)
    subprocess.run(["sh", "-c", error.mend], check=True, capture_output=True)
    assert bench.says() == "node0"


def test_mend_for_an_aliased_key_works(bench: Bench) -> None:
    bench.write("", "HostKeyAlias the-first")
    error = bench.fails(HostKeyUnknown)
    subprocess.run(["sh", "-c", error.mend], check=True, capture_output=True)
    assert bench.says() == "node0"
    assert bench.known.read_text().startswith("the-first ")


@pytest.mark.parametrize("strict", ["yes", "ask", "accept-new", "no"])
def test_changed_key_is_refused_however_lax_the_config(
    bench: Bench, another_key: str, strict: str
) -> None:
    known = f"# a comment\n{bench.address()} {another_key}\n"
    bench.write(known, f"StrictHostKeyChecking {strict}")
    error = bench.fails(HostKeyChanged)
    assert f"{bench.known}, line 2" in error.reason
    assert error.mend.startswith(f"ssh-keygen -R {bench.address()} -f ")
    assert bench.known.read_text() == known


def test_key_of_another_kind_counts_as_changed(bench: Bench, tmp_path: Path) -> None:
    words = ["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "ecdsa")]
    subprocess.run(words, check=True)
    kind, text, *_ = (tmp_path / "ecdsa.pub").read_text().split()
    bench.write(f"{bench.address()} {kind} {text}\n", "StrictHostKeyChecking accept-new")
    assert kind in bench.fails(HostKeyChanged).reason


def test_right_key_beside_a_wrong_one_is_accepted(bench: Bench, another_key: str) -> None:
    bench.write(f"{bench.address()} {another_key}\n{bench.knows(0)}")
    assert bench.says() == "node0"


def test_revoked_key_is_refused(bench: Bench) -> None:
    bench.write(f"{bench.knows(0)}@revoked * {bench.hosts.host_key(0)}\n")
    assert "revoked" in bench.fails(HostKeyChanged).reason


@pytest.mark.parametrize("binary", [False, True])
def test_key_in_a_revocation_list_is_refused(bench: Bench, binary: bool) -> None:
    listed, text = bench.folder / "revoked", bench.folder / "keys"
    text.write_text(bench.hosts.host_key(0) + "\n")
    if binary:
        words = ["ssh-keygen", "-k", "-f", str(listed), str(text)]
        subprocess.run(words, check=True, capture_output=True)
    else:
        text.rename(listed)
    bench.write(bench.knows(0, 1), f"RevokedHostKeys {listed}")
    assert "revoked" in bench.fails(HostKeyChanged).reason
    assert bench.says("node1") == "node1"


def test_lines_with_markers_do_not_disturb_others(bench: Bench, another_key: str) -> None:
    bench.write(
        f"@revoked * {another_key}\n@cert-authority *.example.org {another_key}\n"
        f"not a line at all\n{bench.knows(0)}"
    )
    assert bench.says() == "node0"


def test_certificate_authority_alone_does_not_vouch(bench: Bench, another_key: str) -> None:
    bench.write(f"@cert-authority * {another_key}\n")
    assert "@cert-authority" in bench.fails(HostKeyUnknown).reason


def test_hashed_names_are_found(bench: Bench) -> None:
    hashed(bench)
    assert bench.says() == "node0"


def test_wildcards_match_and_negations_do_not(bench: Bench) -> None:
    net = bench.address().rpartition(".")[0]
    bench.write(f"{net}.*,!{bench.address(1)} {bench.hosts.host_key(0)}\n")
    assert bench.says() == "node0"
    bench.fails(HostKeyUnknown, "node1")


def test_changed_key_under_a_pattern_names_the_line_to_remove(
    bench: Bench, another_key: str
) -> None:
    bench.write(f"* {another_key}\n")
    assert bench.fails(HostKeyChanged).mend.startswith(f"remove {bench.known}, line 1")


def test_host_key_alias_is_what_counts(bench: Bench, another_key: str) -> None:
    known = f"the-first {bench.hosts.host_key(0)}\n{bench.address()} {another_key}\n"
    bench.write(known, "HostKeyAlias the-first")
    assert bench.says() == "node0"


def test_other_port_is_known_with_its_number(
    bench: Bench, other_ports: None, another_key: str
) -> None:
    place = f"[{bench.address()}]:{OTHER_PORT}"
    port = f"Port {OTHER_PORT}"
    bench.write(f"{place} {bench.hosts.host_key(0)}\n", port)
    assert bench.says() == "node0"
    bench.write(f"{place} {another_key}\n", port)
    assert place in bench.fails(HostKeyChanged).mend
    bench.write(bench.knows(0), port)  # the plain name's key is good for all its ports
    assert bench.says() == "node0"
    bench.write(f"{bench.address()} {another_key}\n", port)
    bench.fails(HostKeyUnknown)


def test_second_and_global_files_are_read(bench: Bench) -> None:
    (bench.folder / "more").write_text(bench.knows(0))
    (bench.folder / "global").write_text(bench.knows(1))
    bench.write(
        "",
        f"UserKnownHostsFile {bench.folder}/none {bench.folder}/more",
        f"GlobalKnownHostsFile {bench.folder}/global",
    )
    assert (bench.says("node0"), bench.says("node1")) == ("node0", "node1")


@pytest.mark.parametrize("hash_names", ["yes", "no"])
def test_accept_new_writes_the_key_down(bench: Bench, hash_names: str) -> None:
    options = ("StrictHostKeyChecking accept-new", f"HashKnownHosts {hash_names}")
    bench.write("# no newline at the end", *options)
    text = bench.known.read_text().rstrip("\n")
    bench.known.write_text(text)
    assert bench.says() == "node0"
    assert len(bench.warnings) == 1
    lines = bench.known.read_text().splitlines()
    assert lines[0] == text
    assert lines[1].startswith("|1|" if hash_names == "yes" else bench.address())
    bench.warnings.clear()
    assert bench.says() == "node0"
    assert bench.known.read_text().splitlines() == lines
    assert bench.warnings == []
    bench.write(bench.known.read_text())  # strict again: ssh itself agrees with what was written
    command = ["ssh", "-F", str(bench.config), "-o", "BatchMode=yes", "node0", "hostname"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "node0\n"


def test_accept_new_makes_a_file_that_only_its_owner_reads(bench: Bench) -> None:
    bench.write("", "StrictHostKeyChecking accept-new")
    bench.known.unlink()
    assert bench.says() == "node0"
    assert bench.known.stat().st_mode & 0o777 == 0o600


def test_no_checking_warns_and_writes_nothing(bench: Bench) -> None:
    bench.write("", "StrictHostKeyChecking no")
    assert bench.says() == "node0"
    assert len(bench.warnings) == 1
    assert bench.known.read_text() == ""


# Logging in.


def test_key_that_the_server_does_not_know_is_denied(bench: Bench) -> None:
    make_key(bench.folder / "mine")
    bench.write(bench.knows(0), f"IdentityFile {bench.folder}/mine", "IdentitiesOnly yes")
    config = bench.config.read_text().replace(f"IdentityFile {bench.hosts.key}\n", "")
    bench.config.write_text(config)
    assert "permission denied (1 key tried)" in bench.fails(AuthenticationFailed).reason


def only_key(bench: Bench, key: Path, *options: str) -> None:
    bench.write(bench.knows(0), *options)
    config = bench.config.read_text().replace(str(bench.hosts.key), str(key))
    bench.config.write_text(config)


def encrypted_copy(bench: Bench) -> Path:
    key = bench.folder / "locked"
    shutil.copy(bench.hosts.key, key)
    words = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)]
    subprocess.run(words, check=True, capture_output=True)
    return key


def test_key_with_a_passphrase_and_no_agent_says_ssh_add(bench: Bench) -> None:
    key = encrypted_copy(bench)
    only_key(bench, key)
    error = bench.fails(AuthenticationFailed)
    assert "passphrase" in error.reason
    assert error.mend == f"ssh-add {key}"


def test_key_file_that_others_can_read_is_not_used(bench: Bench) -> None:
    key = bench.folder / "open"
    shutil.copy(bench.hosts.key, key)
    key.chmod(0o644)
    only_key(bench, key)
    assert bench.fails(AuthenticationFailed).mend == f"chmod 600 {key}"


def test_damaged_key_file_is_named(bench: Bench) -> None:
    key = bench.folder / "damaged"
    key.write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\n\x1b[31m\n")
    key.chmod(0o600)
    only_key(bench, key)
    assert str(key) in bench.fails(AuthenticationFailed).reason


def test_no_key_at_all_says_so(bench: Bench) -> None:
    only_key(bench, bench.folder / "missing")
    assert "no key to try" in bench.fails(AuthenticationFailed).reason


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    while not path.exists():
        time.sleep(0.01)
    yield path
    process.terminate()
    process.wait()


def add(agent: Path, key: Path) -> None:
    environment = {"SSH_AUTH_SOCK": str(agent), "PATH": "/usr/bin:/bin"}
    subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment)


def test_agent_holds_the_key(bench: Bench, agent: Path) -> None:
    add(agent, bench.hosts.key)
    options = (f"IdentityAgent {agent}", "IdentitiesOnly no")
    only_key(bench, bench.folder / "missing", *options)
    assert bench.says() == "node0"


def test_agent_unlocks_a_key_with_a_passphrase(bench: Bench, agent: Path) -> None:
    add(agent, bench.hosts.key)
    only_key(bench, encrypted_copy(bench), f"IdentityAgent {agent}")
    assert bench.says() == "node0"


def test_only_the_named_key_of_many_in_the_agent_is_offered(bench: Bench, agent: Path) -> None:
    for index in range(7):  # one more than sshd lets anybody try
        make_key(bench.folder / f"key{index}")
        add(agent, bench.folder / f"key{index}")
    add(agent, bench.hosts.key)
    named = bench.folder / "named"  # only the public half is on disk
    shutil.copy(f"{bench.hosts.key}.pub", f"{named}.pub")
    only_key(bench, named, f"IdentityAgent {agent}")
    assert bench.says() == "node0"
    only_key(bench, bench.folder / "missing", f"IdentityAgent {agent}")
    assert "no key to try" in bench.fails(AuthenticationFailed).reason
    only_key(bench, bench.folder / "missing", f"IdentityAgent {agent}", "IdentitiesOnly no")
    assert "IdentitiesOnly" in bench.fails(AuthenticationFailed).mend


def test_dead_agent_is_no_agent(bench: Bench) -> None:
    bench.write(bench.knows(0), f"IdentityAgent {bench.folder}/nobody")
    assert bench.says() == "node0"


@pytest.mark.parametrize("port", [PASSWORD_PORT, TWO_STEP_PORT])
def test_server_that_wants_a_password_is_refused(
    bench: Bench, other_ports: None, port: int
) -> None:
    bench.write(bench.knows(0), f"Port {port}")
    assert "asks for a password" in (reason := bench.fails(AuthenticationFailed).reason) or (
        "wants a password" in reason
    )


# The network.


def test_nothing_listening_is_refused(bench: Bench) -> None:
    bench.write(bench.knows(0), "Port 2999")
    error = bench.fails(Unreachable)
    assert "connection refused" in error.reason
    assert error.mend == f"ssh -F {bench.config} node0"


@pytest.fixture
def blackholed(hosts: NamespaceHosts) -> Iterator[None]:
    """node1 hears everything and answers nothing."""
    route = ["blackhole", hosts.gateway]
    hosts.run(1, ["ip", "route", "add", *route])
    yield
    hosts.run(1, ["ip", "route", "del", *route])


def test_host_that_drops_packets_is_given_up_in_time(bench: Bench, blackholed: None) -> None:
    bench.write(bench.knows(1), "ConnectTimeout 1")
    start = time.monotonic()
    assert "no answer" in bench.fails(Unreachable, "node1").reason
    assert time.monotonic() - start < 2


def test_address_without_a_machine_is_no_route(bench: Bench) -> None:
    bench.write("", f"HostName {bench.hosts.free_address}")
    assert "no route" in bench.fails(Unreachable).reason


def test_unknown_name_is_said(bench: Bench) -> None:
    bench.write("", "HostName no-such-machine.invalid")
    assert "no-such-machine.invalid" in bench.fails(Unreachable).reason


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("printf 'HTTP/1.0 400 \\033[31m no\\r\\n'; sleep 9", "no answer"),
        ("printf 'SSH-1.5-old\\r\\n'; sleep 9", "share no"),
        ("sleep 9", "no answer"),
        ("exit 0", "hung up"),
        ("yes '\\033[2J'", "no ssh server"),
    ],
)
def test_what_is_no_ssh_server_is_unreachable(bench: Bench, server: str, words: str) -> None:
    bench.write("", "ConnectTimeout 1", f'ProxyCommand sh -c "{server}"')
    assert words in bench.fails(Unreachable).reason


def test_crowded_server_is_tried_again(bench: Bench, other_ports: None) -> None:
    bench.write(bench.knows(0), f"Port {FULL_PORT}")
    transport = bench.transport()
    nodes = [Node("x", "node0") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        connections = list(pool.map(lambda node: transport.open(node, "hostname"), nodes))
    assert {connection.receive() for connection in connections} == {b"node0\n"}
    for connection in connections:
        connection.close()


def test_power_off_is_noticed(bench: Bench) -> None:
    transport = bench.transport()
    connection = transport.open(Node("x", "node1"), "echo up; cat")
    assert connection.receive() == b"up\n"
    try:
        bench.hosts.power_off(1)
        assert connection.receive() == b""
        assert connection.wait(5) == -1
    finally:
        bench.hosts.start(1)
        connection.close()


def test_three_second_outage_is_survived_and_a_cut_cable_noticed(bench: Bench) -> None:
    transport = bench.transport()
    connection = transport.open(Node("x", "node1"), "echo up; cat")
    assert connection.receive() == b"up\n"
    bench.hosts.link_down(1)
    try:
        connection.send(b"still here\n")
        time.sleep(3)
        bench.hosts.link_up(1)
        assert connection.receive() == b"still here\n"
        bench.hosts.link_down(1)
        start = time.monotonic()
        assert connection.receive() == b""
        assert connection.wait(1) == -1
        assert time.monotonic() - start < 14
    finally:
        bench.hosts.link_up(1)
        connection.close()


# Jump hosts.


@pytest.mark.parametrize(
    "jump", ["node0", "root@{0}:22", "ssh://root@{0}:22", "root@[{0}]:22", "node0,{0}"]
)
def test_jump_hosts_are_gone_through(bench: Bench, jump: str) -> None:
    place = jump.format(bench.address(0), bench.address(1))
    script = 'echo "$SSH_CONNECTION" | cut -d" " -f1; hostname'
    bench.write(bench.knows(0, 1), first=f"Host node1\nProxyJump {place}\nHost *")
    assert bench.says("node1", script).split() == [bench.address(0), "node1"]


def test_nodes_behind_one_jump_host_share_the_way(bench: Bench) -> None:
    bench.write(bench.knows(0, 1), first="Host node1\nProxyJump node0\nHost *")
    transport = bench.transport()

    def links() -> list[str]:
        command = ["ss", "-Htn", "state", "established", "sport", "=", ":22"]
        return bench.hosts.run(0, command).stdout.splitlines()

    assert eventually(lambda: not links())  # sshd may not yet have seen earlier ones go
    with ThreadPoolExecutor(16) as pool:
        opening = [
            pool.submit(transport.open, Node("x", "node1"), "echo up; cat") for _ in range(16)
        ]
        connections = [each.result() for each in opening]
    assert {connection.receive() for connection in connections} == {b"up\n"}
    assert len(links()) == 1
    for connection in connections:
        connection.close()
    transport.close()


def test_way_is_opened_again_after_the_jump_host_was_off(bench: Bench) -> None:
    bench.write(bench.knows(0, 1), first="Host node0\nProxyJump node1\nHost *")
    transport = bench.transport()
    for _ in range(2):
        connection = transport.open(Node("x", "node0"), "hostname; cat")
        assert connection.receive() == b"node0\n"
        bench.hosts.power_off(1)
        assert connection.receive() == b""
        connection.close()
        bench.hosts.start(1)
    transport.close()


@pytest.mark.parametrize("wrong", [False, True])
def test_key_of_the_jump_host_is_checked(bench: Bench, another_key: str, wrong: bool) -> None:
    known = f"{bench.address(0)} {another_key}\n" if wrong else ""
    bench.write(known + bench.knows(1), first="Host node1\nProxyJump node0\nHost *")
    error = bench.fails(HostKeyChanged if wrong else HostKeyUnknown, "node1")
    assert f"jump host {bench.address(0)}" in error.reason


def test_key_behind_the_jump_host_is_checked(bench: Bench) -> None:
    bench.write(bench.knows(0), first="Host node1\nProxyJump node0\nHost *")
    error = bench.fails(HostKeyUnknown, "node1")
    subprocess.run(["sh", "-c", error.mend], check=True, capture_output=True)
    assert bench.says("node1") == "node1"


def test_all_nodes_behind_a_dead_jump_host_fail_together(bench: Bench) -> None:
    bench.write(bench.knows(0, 1), first="Host node1\nProxyJump 127.0.0.1:2999\nHost *")
    transport = bench.transport(4.0)

    def failure(line: int) -> Exception | None:
        node = Node("x", "node1", f"nodes, line {line}")
        with ThreadPoolExecutor(1) as alone:
            return alone.submit(transport.open, node, "true").exception()

    start = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        errors = list(pool.map(failure, range(16)))
    assert time.monotonic() - start < 4
    for line, error in enumerate(errors):
        assert isinstance(error, Unreachable)
        assert error.node == f"node1 (nodes, line {line})"
        assert "refused by jump host 127.0.0.1 port 2999" in error.reason


def test_node_that_the_jump_host_cannot_reach_names_both(bench: Bench) -> None:
    bench.write(bench.knows(0, 1), first="Host node1\nProxyJump node0\nPort 2999\nHost *")
    reason = bench.fails(Unreachable, "node1").reason
    assert f"{bench.address(1)} port 2999 from jump host {bench.address(0)} port 22" in reason


def test_proxy_command_is_honoured(bench: Bench) -> None:
    command = f"ssh -F {bench.config} -W %h:%p node0"
    bench.write(bench.knows(0, 1), first=f"Host node1\nProxyCommand {command}\nHost *")
    assert bench.says("node1") == "node1"


# ssh_config.


def test_include_and_match_are_honoured(bench: Bench, other_ports: None) -> None:
    part = bench.folder / "part"
    part.write_text(f"Match originalhost gpu* exec true\nHostName {bench.address(0)}\n")
    bench.write(bench.knows(0), first=f"Include {part}\nMatch all")
    assert bench.says("gpu3") == "node0"


def test_user_and_port_in_the_alias_are_honoured(bench: Bench, other_ports: None) -> None:
    bench.write(bench.knows(0), first="Host *\nUser nobody\nPort 1")
    assert bench.says(f"ssh://root@{bench.address(0)}:{OTHER_PORT}") == "node0"


@pytest.mark.parametrize(
    "alias",
    [
        "-oProxyCommand=touch {}",
        "-F{}",
        "node0 -oProxyCommand=touch {}",
        "$(touch {})",
        "`touch {}`",
        "a;touch {}",
        "node0\n-x",
        "\x1b[31mred",
        "",
        "a\0b",
    ],
)
def test_alias_is_never_an_option_or_a_command(bench: Bench, alias: str) -> None:
    trap = bench.folder / "trap"
    bench.write(bench.knows(0), "ProxyCommand nc %h %p; echo %n")
    transport = bench.transport()
    with pytest.raises((SshConfigError, Unreachable)) as caught:
        transport.open(Node("x", alias.format(trap)), "echo never")
    assert caught.value.reason.isprintable()
    assert not trap.exists()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("NoSuchOption yes", "NoSuchOption"),
        ("Host *\nPort many", "port"),
        ("Host node0\nProxyJump node0", "loop"),
        ("Host node0\nProxyJump node1\nHost node1\nProxyJump node0", "loop"),
        ("Host *\nHostName $(touch /tmp/x)", "not"),
    ],
)
def test_config_that_cannot_be_used_is_said(bench: Bench, config: str, words: str) -> None:
    bench.write("", first=config)
    assert words.lower() in str(bench.fails(SshConfigError)).lower()


def test_missing_config_file_is_said(bench: Bench) -> None:
    bench.config.unlink()
    assert str(bench.config) in bench.fails(SshConfigError).reason
