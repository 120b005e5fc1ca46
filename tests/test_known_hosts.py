"""What `ssh -G` and `ssh-keygen -F` print, as data: no machine is asked."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import AuthenticationFailed, NodeError, SshConfigError, Unreachable
from launcher.transports.known_hosts import (
    KnownKey,
    append_key,
    host_name,
    is_listed,
    parse_found,
    preferred_kinds,
)
from launcher.transports.ssh_config import Hop, SshTarget, parse_jump, parse_ssh_g
from launcher.transports.ssh_errors import printable, translate

HOME = os.path.expanduser("~")


def parsed(*lines: str, alias: str = "gpu3") -> SshTarget:
    text = "\n".join(["host gpu3", "user me", "hostname 10.0.0.3", "port 22", *lines])
    return parse_ssh_g(text, Hop(alias), None, "gpu3 (nodes, line 3)")


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("bastion", Hop("bastion")),
        ("me@bastion", Hop("bastion", "me")),
        ("me@bastion:2200", Hop("bastion", "me", 2200)),
        ("me@example.org@bastion:2200", Hop("bastion", "me@example.org", 2200)),
        ("[fe80::1]:2200", Hop("fe80::1", None, 2200)),
        ("me@[fe80::1]", Hop("fe80::1", "me")),
        ("fe80::1", Hop("fe80::1")),
        ("ssh://me@bastion:2200", Hop("bastion", "me", 2200)),
        ("ssh://bastion", Hop("bastion")),
        ("ssh://[fe80::1]:2200", Hop("fe80::1", None, 2200)),
    ],
)
def test_jump_hosts_are_read(text: str, hop: Hop) -> None:
    assert parse_jump(text) == hop


@pytest.mark.parametrize("text", ["", "host:port", "[::1", "ssh://h:99999", "me@"])
def test_jump_hosts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"[Pp]ort|jump"):
        parse_jump(text)
    if text:
        with pytest.raises(SshConfigError):
            parsed(f"proxyjump {text}")


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("stricthostkeychecking true", "strict", "yes"),
        ("stricthostkeychecking false", "strict", "no"),
        ("stricthostkeychecking ask", "strict", "ask"),
        ("stricthostkeychecking accept-new", "strict", "accept-new"),
        ("stricthostkeychecking whatever", "strict", "yes"),
        ("identityfile ~/.ssh/%h_%r", "identity_files", (Path(f"{HOME}/.ssh/10.0.0.3_me"),)),
        ("identityfile /k y", "identity_files", (Path("/k y"),)),
        ("identityagent none", "identity_agent", None),
        ("identityagent /run/agent %p", "identity_agent", "/run/agent 22"),
        ("userknownhostsfile /a b /c ~/d", "user_known_hosts", ("/a b", "/c", f"{HOME}/d")),
        ("userknownhostsfile none", "user_known_hosts", ()),
        ("connecttimeout none", "connect_timeout_seconds", None),
        ("connecttimeout 3", "connect_timeout_seconds", 3),
        ("proxycommand nc %h %p 100%% %r", "proxy_command", "nc 10.0.0.3 22 100% me"),
        ("proxycommand none", "proxy_command", None),
        ("proxyjump none", "proxy_jump", ()),
        ("proxyjump a,b@c:3", "proxy_jump", (Hop("a"), Hop("c", "b", 3))),
        ("hostkeyalias one", "host_key_alias", "one"),
        ("revokedhostkeys none", "revoked_keys", None),
    ],
)
def test_answer_of_ssh_is_read(line: str, field: str, value: object) -> None:
    found = getattr(parsed(line), field)
    if field == "user_known_hosts":
        found = tuple(str(path) for path in found)
    assert found == value


@pytest.mark.parametrize("name", ["$(id)", "a;b", "-x", "a b", "a|b", "a\x1bb"])
def test_names_that_a_proxy_command_would_run_are_refused(name: str) -> None:
    with pytest.raises(SshConfigError) as caught:
        parse_ssh_g(f"user me\nhostname {name}\nport 22", Hop("gpu3"), None, "gpu3")
    assert str(caught.value).isprintable()


def test_name_in_known_hosts_has_the_port_or_is_the_alias() -> None:
    assert host_name(parsed()) == "10.0.0.3"
    assert host_name(parse_ssh_g("hostname h\nport 2200", Hop("a"), None, "a")) == "[h]:2200"
    aliased = parse_ssh_g("hostname h\nport 2200\nhostkeyalias k", Hop("a"), None, "a")
    assert host_name(aliased) == "k"


def test_command_to_type_is_quoted() -> None:
    target = parse_ssh_g("hostname h", Hop("a", "me", 7), Path("/my config"), "a")
    assert target.command == "ssh -F '/my config' -l me -p 7 a"


FOUND = """# Host h found: line 3
h,h2 ssh-ed25519 AAAA comment
# Host h found: line 5 REVOKED
@revoked * ssh-rsa BBBB
# Host h found: line 9 CA
@cert-authority *.org ssh-rsa CCCC
nonsense
"""


def test_answer_of_ssh_keygen_is_read() -> None:
    file = Path("known")
    assert parse_found(FOUND, file) == (
        KnownKey("ssh-ed25519", "AAAA", file, 3, "h,h2"),
        KnownKey("ssh-rsa", "BBBB", file, 5, "*", "@revoked"),
        KnownKey("ssh-rsa", "CCCC", file, 9, "*.org", "@cert-authority"),
    )


def test_known_kinds_are_asked_for_first() -> None:
    offered = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "ssh-rsa")
    known = (
        KnownKey("ssh-rsa", "A", Path("k"), 1),
        KnownKey("ssh-ed25519", "B", Path("k"), 2, marker="@revoked"),
    )
    first = ("rsa-sha2-512", "ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256")
    assert preferred_kinds(known, offered) == first
    assert preferred_kinds((), offered) == offered


def test_lines_are_added_whole_and_once_by_many_at_once(tmp_path: Path) -> None:
    file = tmp_path / "new" / "known"
    lines = [f"host{n} ssh-ed25519 {'A' * 80}{n}" for n in range(8)] * 2
    threads = [threading.Thread(target=append_key, args=(file, line)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file.read_text().splitlines()) == sorted(set(lines))
    assert file.stat().st_mode & 0o777 == 0o600


def test_revocation_list_that_cannot_be_read_revokes_all(tmp_path: Path) -> None:
    assert is_listed("ssh-ed25519 AAAA", tmp_path / "missing", "gpu3")
    (tmp_path / "list").write_text("ssh-ed25519 BBBB comment\n")
    assert not is_listed("ssh-ed25519 AAAA", tmp_path / "list", "gpu3")
    assert is_listed("ssh-ed25519 BBBB", tmp_path / "list", "gpu3")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ConnectionRefusedError(111, "x"), Unreachable, "connection refused by h port 22"),
        (TimeoutError(), Unreachable, "no answer from h port 22 within 6 s"),
        (OSError(113, "No route to host"), Unreachable, "no route to h port 22"),
        (OSError(5, "Input/output error"), Unreachable, "Input/output error"),
        (EOFError(), Unreachable, "closed the connection"),
        (ConnectionResetError(), Unreachable, "closed the connection"),
        (paramiko.SSHException("No existing session"), Unreachable, "did not finish"),
        (paramiko.SSHException("\x1b[2J\n" + "x" * 999), Unreachable, "xxx..."),
        (paramiko.ChannelException(2, "no"), Unreachable, "was refused"),
        (paramiko.AuthenticationException("no"), AuthenticationFailed, "accepted no key"),
        (ZeroDivisionError("what"), Unreachable, "ZeroDivisionError: what"),
        (AuthenticationFailed("other", "why", "this"), AuthenticationFailed, "why"),
    ],
)
def test_foreign_errors_become_ours(error: Exception, kind: type[NodeError], words: str) -> None:
    ours = translate(error, "gpu3", "h port 22", "ssh gpu3", 6)
    assert type(ours) is kind
    assert ours.node == "gpu3"
    assert words in ours.reason
    assert str(ours).isprintable()


@given(st.text())
def test_anything_becomes_one_short_printable_line(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) <= 200


@given(st.text())
def test_any_answer_of_ssh_is_read_or_refused(text: str) -> None:
    with suppress(SshConfigError):
        parse_ssh_g(text, Hop("gpu3"), None, "gpu3")
