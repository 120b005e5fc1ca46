"""Host keys: what the known_hosts files say of a machine, and whether its key will do.

The files are read by OpenSSH's own `ssh-keygen -F`, so that hashed names, patterns, ports and
markers mean here what they mean to ssh.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import paramiko

from launcher.errors import HostKeyChanged, HostKeyUnknown, SshConfigError
from launcher.transports.ssh_config import SshTarget
from launcher.transports.ssh_errors import printable

_SECONDS = 10


@dataclass(frozen=True)
class KnownKey:
    """One key that a known_hosts line gives to a host. marker: "", @revoked or @cert-authority."""

    kind: str
    base64: str
    file: Path
    line: int
    hosts: str = ""
    marker: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.line}"


def host_name(target: SshTarget) -> str:
    """The name under which known_hosts has the machine."""
    if target.host_key_alias:
        return target.host_key_alias
    return target.hostname if target.port == 22 else f"[{target.hostname}]:{target.port}"


def known_keys(target: SshTarget, label: str) -> tuple[KnownKey, ...]:
    """All keys that the files of `target` give to it.

    Raises SshConfigError when a file cannot be read, or there is no ssh-keygen.
    """
    files = (*target.user_known_hosts, *target.global_known_hosts)
    name = host_name(target)
    return tuple(key for file in files for key in find(name, file, label))


def find(name: str, file: Path, label: str) -> tuple[KnownKey, ...]:
    """The keys that `file` gives to `name`. Raises SshConfigError as known_keys does."""
    if not file.is_file():
        return ()
    if not os.access(file, os.R_OK):
        raise SshConfigError(label, f"{file}: permission denied", f"chmod u+r {file}")
    # ssh-keygen takes a file name that begins with a dash for what it is after -f.
    done = ssh_keygen(["-F", name, "-f", str(file)], label)
    return parse_found(done.stdout.decode(errors="replace"), file)


def parse_found(text: str, file: Path) -> tuple[KnownKey, ...]:
    """Parse the answer of `ssh-keygen -F`: a comment with the line number, then the line."""
    keys: list[KnownKey] = []
    number = 0
    for line in text.splitlines():
        if line.startswith("#"):
            found = re.search(r"found: line ([0-9]{1,9})\b", line)
            number = int(found[1]) if found else 0
            continue
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) >= 3:
            keys.append(KnownKey(words[1], words[2], file, number, words[0], marker))
    return tuple(keys)


def preferred_kinds(known: tuple[KnownKey, ...], offered: tuple[str, ...]) -> tuple[str, ...]:
    """`offered`, with the kinds that are known first, so that the server shows one of those."""
    kinds = {key.kind for key in known if not key.marker}
    if "ssh-rsa" in kinds:
        kinds |= {"rsa-sha2-512", "rsa-sha2-256"}
    return tuple(sorted(offered, key=lambda kind: kind not in kinds))


class HostKeyCheck(paramiko.MissingHostKeyPolicy):
    """Decides on every host key; paramiko itself is told of none.

    warn: is given a line when a key is taken that nobody vouched for.
    """

    def __init__(self, target: SshTarget, label: str, warn: Callable[[str], None]) -> None:
        self.known = known_keys(target, label)
        self._target = target
        self._label = label
        self._warn = warn
        self._name = host_name(target)

    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:
        """Return when `key` will do. Raises HostKeyUnknown or HostKeyChanged."""
        self.check(key)

    def check(self, key: paramiko.PKey) -> None:
        """Return when `key` will do. Raises HostKeyUnknown or HostKeyChanged."""
        shown = key.get_base64()
        self._refuse_revoked(key)
        plain = [known for known in self.known if not known.marker]
        if any(known.base64 == shown for known in plain):
            return
        if plain:
            raise self._changed(plain, key)
        if self._known_without_port(shown):
            return
        if self._target.strict == "accept-new":
            self._remember(key)
        elif self._target.strict == "no":
            self._warn(f"{self._label}: {self._shown(key)} was taken without being known")
        else:
            raise self._unknown(key)

    def _shown(self, key: paramiko.PKey) -> str:
        who = "jump host " * self._target.is_jump + self._name
        return f"the host key of {who} ({key.get_name()} {key.fingerprint})"

    def _refuse_revoked(self, key: paramiko.PKey) -> None:
        shown = key.get_base64()
        for known in self.known:
            if known.marker == "@revoked" and known.base64 == shown:
                raise HostKeyChanged(
                    self._label,
                    f"{self._shown(key)} is revoked in {known.place}",
                    "give the machine a new host key",
                )
        file = self._target.revoked_keys
        if file is not None and is_listed(f"{key.get_name()} {shown}", file, self._label):
            raise HostKeyChanged(
                self._label,
                f"{self._shown(key)} is revoked by {file}, or that file cannot be read",
                "give the machine a new host key",
            )

    def _changed(self, plain: list[KnownKey], key: paramiko.PKey) -> HostKeyChanged:
        known = next((k for k in plain if k.kind == key.get_name()), plain[0])
        if re.search(r"[*?,]", known.hosts):
            mend = f"remove {known.place}"
        else:
            mend = shlex.join(["ssh-keygen", "-R", self._name, "-f", str(known.file)])
        return HostKeyChanged(
            self._label,
            f"{self._shown(key)} is not the {known.kind} key in {known.place}; "
            "either the machine was set up anew, or somebody is in between",
            f"{mend}   (if you know why it changed)",
        )

    def _unknown(self, key: paramiko.PKey) -> HostKeyUnknown:
        trusted = any(known.marker == "@cert-authority" for known in self.known)
        note = "; certificates of a @cert-authority are not used here" if trusted else ""
        return HostKeyUnknown(
            self._label,
            f"{self._shown(key)} is in no known_hosts file{note}",
            self._accepting_line(),
        )

    def _accepting_line(self) -> str:
        """The line that makes the key known, as good as the settings allow."""
        target = self._target
        if target.strict == "ask" and not target.batch_mode:
            return target.command_with()
        direct = target.via is None and target.proxy_command is None
        if direct and not target.host_key_alias and target.user_known_hosts:
            port = ["-p", str(target.port)] if target.port != 22 else []
            scan = shlex.join(["ssh-keyscan", *port, target.hostname])
            return f"{scan} >> {shlex.quote(str(target.user_known_hosts[0]))}"
        return target.command_with("-o", "StrictHostKeyChecking=accept-new") + " true"

    def _known_without_port(self, shown: str) -> bool:
        """Whether the key is known for the host on port 22: ssh lets that do for other ports."""
        target = self._target
        if target.host_key_alias or target.port == 22:
            return False
        files = (*target.user_known_hosts, *target.global_known_hosts)
        keys = (key for file in files for key in find(target.hostname, file, self._label))
        return any(not key.marker and key.base64 == shown for key in keys)

    def _remember(self, key: paramiko.PKey) -> None:
        file = next(iter(self._target.user_known_hosts), None)
        self._warn(f"{self._label}: {self._shown(key)} is new, and taken as accept-new says")
        if file is None or (file.exists() and not file.is_file()):
            return
        written = (
            paramiko.HostKeys.hash_host(self._name) if self._target.hash_known_hosts else self._name
        )
        try:
            append_key(file, f"{written} {key.get_name()} {key.get_base64()}")
        except OSError as error:
            self._warn(f"{self._label}: {file} could not be written: {printable(error)}")


def is_listed(key: str, file: Path, label: str) -> bool:
    """Whether a RevokedHostKeys file, a list of keys or a KRL, has `key` (kind and base64).

    One that cannot be read has every key, as it has for ssh.
    """
    try:
        data = file.read_bytes()
    except OSError:
        return True
    if not data.startswith(b"SSHKRL\n"):
        return key.split()[1].encode() in data.split()
    done = ssh_keygen(["-Q", "-f", str(file), "/dev/stdin"], label, f"{key}\n".encode())
    return done.returncode != 0


def append_key(file: Path, line: str) -> None:
    """Add a line to a known_hosts file, which is made (0600) if it is not there.

    Raises OSError.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        held = opened.read()
        if line.encode() in held.splitlines():
            return
        gap = b"" if not held or held.endswith(b"\n") else b"\n"
        opened.write(gap + line.encode() + b"\n")


def ssh_keygen(
    arguments: list[str], label: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run ssh-keygen. Raises SshConfigError when it is not there or does not end."""
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments], input=stdin, capture_output=True, timeout=_SECONDS
        )
    except FileNotFoundError as error:
        raise SshConfigError(
            label, "there is no `ssh-keygen` command on this machine", "install the OpenSSH client"
        ) from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise SshConfigError(label, f"ssh-keygen could not be run: {printable(error)}") from error
