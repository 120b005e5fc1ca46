"""What ssh_config says of a host, asked of ssh itself: alias -> SshTarget.

`ssh -G` resolves Include, Match, patterns and defaults as only OpenSSH can; this reads its answer.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import shlex
import socket
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from launcher.errors import SshConfigError
from launcher.transports.ssh_errors import printable

# What OpenSSH refuses in host and user names, because ProxyCommand gives them to a shell.
_UNSAFE = re.compile(r"""^-|^$|[\s\x00-\x1f\x7f'`"$\\;&<>|(){}]""")
_MAX_JUMPS = 8


@dataclass(frozen=True)
class Hop:
    """What one types to reach a machine: a nodes-file alias, or one part of a ProxyJump."""

    alias: str
    user: str | None = None
    port: int | None = None

    def arguments(self, ssh_config: Path | None) -> list[str]:
        """The arguments of ssh that name this machine, without the dashes before the alias."""
        words = ["-F", str(ssh_config)] if ssh_config is not None else []
        words += ["-l", self.user] if self.user is not None else []
        words += ["-p", str(self.port)] if self.port is not None else []
        return words


@dataclass(frozen=True)
class SshTarget:
    """One machine as `ssh -G` resolves it, and how it is reached.

    user_known_hosts, global_known_hosts: the files, whether they exist or not.
    identity_agent: path of the agent's socket, or None for no agent.
    strict: yes, ask, accept-new or no.
    via: the jump host to go through, or None. is_jump: whether it is such a jump host itself.
    """

    hop: Hop
    hostname: str
    port: int
    user: str
    host_key_alias: str | None
    user_known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    revoked_keys: Path | None
    strict: str
    hash_known_hosts: bool
    batch_mode: bool
    identity_files: tuple[Path, ...]
    identities_only: bool
    identity_agent: str | None
    connect_timeout_seconds: int | None
    proxy_command: str | None
    proxy_jump: tuple[Hop, ...]
    via: SshTarget | None = None
    is_jump: bool = False
    ssh_config: Path | None = None

    @property
    def place(self) -> str:
        """Where the machine is, for messages."""
        return f"{'jump host ' * self.is_jump}{self.hostname} port {self.port}"

    @property
    def command(self) -> str:
        """The ssh line that a person would type to get there."""
        return self.command_with()

    def command_with(self, *options: str) -> str:
        """As `command`, with options such as `-o`, `BatchMode=no` before the host."""
        words = [*self.hop.arguments(self.ssh_config), *options]
        return shlex.join(["ssh", *words, self.hop.alias])


def resolve(alias: str, ssh_config: Path | None, label: str, timeout_seconds: float) -> SshTarget:
    """Resolve `alias` and every jump host on the way to it.

    Raises SshConfigError, for the node that `label` names.
    """
    return _resolve(Hop(alias), ssh_config, label, timeout_seconds, 0)


def _resolve(
    hop: Hop, config: Path | None, label: str, timeout_seconds: float, depth: int
) -> SshTarget:
    """Resolve one hop and the hops before it, as `ssh -J` does: those of ProxyJump a,b are b via a,
    and only the first of them goes by its own ProxyJump or ProxyCommand."""
    if depth > _MAX_JUMPS:
        raise SshConfigError(label, f"ProxyJump is a loop of more than {_MAX_JUMPS} hosts")
    target = parse_ssh_g(_run_ssh_g(hop, config, label, timeout_seconds), hop, config, label)
    if not target.proxy_jump:
        return target
    via: SshTarget | None = None
    for index, jump in enumerate(target.proxy_jump):
        if index == 0:
            found = _resolve(jump, config, label, timeout_seconds, depth + 1)
        else:
            answer = _run_ssh_g(jump, config, label, timeout_seconds)
            found = replace(parse_ssh_g(answer, jump, config, label), via=via, proxy_command=None)
        via = replace(found, is_jump=True)
    return replace(target, via=via, proxy_command=None)


def _run_ssh_g(hop: Hop, config: Path | None, label: str, timeout_seconds: float) -> str:
    if _UNSAFE.search(hop.alias) or (hop.user and _UNSAFE.search(hop.user)):
        raise SshConfigError(label, f"{printable(repr(hop.alias))} is no name that ssh would take")
    words = hop.arguments(config)
    # The dashes keep an alias from ever being an option.
    command = ["ssh", "-G", *words, "--", hop.alias]
    mend = shlex.join(["ssh", "-G", *words, hop.alias])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_seconds
        )
    except FileNotFoundError as error:
        raise SshConfigError(
            label, "there is no `ssh` command on this machine", "install the OpenSSH client"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SshConfigError(
            label, f"ssh_config took more than {timeout_seconds:.0f} s to read", mend
        ) from error
    except (OSError, ValueError) as error:
        raise SshConfigError(label, f"ssh could not be run: {printable(error)}", mend) from error
    if done.returncode != 0:
        # The first line says what is wrong; the last only that something is.
        said = done.stderr.decode(errors="replace").splitlines()
        first = next((line for line in said if "-terminal will not" not in line), "ssh -G failed")
        raise SshConfigError(label, f"ssh_config cannot be used: {printable(first)}", mend)
    return done.stdout.decode(errors="surrogateescape")


def parse_ssh_g(text: str, hop: Hop, ssh_config: Path | None, label: str) -> SshTarget:
    """Parse what `ssh -G` printed; `via` is left empty.

    Raises SshConfigError when a part of it is nothing that can be used.
    """
    try:
        return _parse(text, hop, ssh_config, label)
    except ValueError as error:  # a NUL in a path, for example
        said = printable(error)
        raise SshConfigError(label, f"what `ssh -G` says cannot be read: {said}") from error


def _parse(text: str, hop: Hop, ssh_config: Path | None, label: str) -> SshTarget:
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key.lower(), []).append(value)

    def first(key: str, default: str = "none") -> str:
        return values.get(key, [default])[0]

    def optional(key: str) -> str | None:
        return None if first(key).lower() in ("none", "") else first(key)

    hostname, user = first("hostname", hop.alias), first("user", "") or getpass.getuser()
    number = first("port", "22")
    if _UNSAFE.search(hostname) or _UNSAFE.search(user) or not re.fullmatch("[0-9]{1,5}", number):
        place = f"{user}@{hostname} port {number}"
        raise SshConfigError(label, f"{printable(place)} is not safe to use")
    port = int(number)
    if not 0 < port < 65536:
        raise SshConfigError(label, f"there is no port {port}")
    expand = _Tokens(hop.alias, hostname, port, user)
    proxy_command = optional("proxycommand")
    revoked = optional("revokedhostkeys")
    timeout = optional("connecttimeout")
    return SshTarget(
        hop=hop,
        hostname=hostname,
        port=port,
        user=user,
        host_key_alias=optional("hostkeyalias"),
        user_known_hosts=expand.paths(values.get("userknownhostsfile", [])),
        global_known_hosts=expand.paths(values.get("globalknownhostsfile", [])),
        revoked_keys=expand.path(revoked) if revoked else None,
        strict=_STRICT.get(first("stricthostkeychecking", "ask"), "yes"),
        hash_known_hosts=first("hashknownhosts") == "yes",
        batch_mode=first("batchmode") == "yes",
        identity_files=tuple(map(expand.path, values.get("identityfile", []))),
        identities_only=first("identitiesonly") == "yes",
        identity_agent=_agent(first("identityagent", "SSH_AUTH_SOCK"), expand),
        connect_timeout_seconds=_seconds(timeout),
        proxy_command=expand.text(proxy_command) if proxy_command else None,
        proxy_jump=_parse_jumps(optional("proxyjump"), label),
        ssh_config=ssh_config,
    )


# `ssh -G` prints yes as "true" and both no and off as "false".
_STRICT = {"true": "yes", "yes": "yes", "ask": "ask", "accept-new": "accept-new"}
_STRICT |= {"false": "no", "no": "no", "off": "no"}


def _seconds(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,6}", text) else None


def _agent(value: str, expand: _Tokens) -> str | None:
    if value.lower() == "none":
        return None
    if value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK")
    if value.startswith("$"):
        return os.environ.get(value[1:].strip("{}"))
    return str(expand.path(value))


def _parse_jumps(text: str | None, label: str) -> tuple[Hop, ...]:
    try:
        return tuple(parse_jump(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise SshConfigError(label, f"ProxyJump {printable(text)} cannot be read") from error


def parse_jump(text: str) -> Hop:
    """One part of a ProxyJump: host, user@host:port, [v6]:port or an ssh:// address.

    Raises ValueError when it is none of these.
    """
    if text.startswith("ssh://"):
        parts = urlsplit(text)
        return Hop(parts.hostname or "", parts.username, parts.port)
    user, _, place = text.rpartition("@")
    match = re.fullmatch(r"\[([^]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?|([^][]*:[^][]*:[^][]*)", place)
    if match is None:
        raise ValueError(f"no jump host: {text}")
    port = match[2] or match[4]
    return Hop(match[1] or match[3] or match[5], user or None, int(port) if port else None)


class _Tokens:
    """Expands the %-tokens, ~ and ${VARIABLES} that `ssh -G` leaves as they were written."""

    def __init__(self, alias: str, hostname: str, port: int, user: str) -> None:
        local = socket.gethostname()
        digest = hashlib.sha1(f"{local}{hostname}{port}{user}".encode(), usedforsecurity=False)
        self._tokens = {
            "%": "%",
            "h": hostname,
            "k": alias,
            "n": alias,
            "p": str(port),
            "r": user,
            "u": getpass.getuser(),
            "d": os.path.expanduser("~"),
            "i": str(os.getuid()),
            "l": local,
            "L": local.partition(".")[0],
            "C": digest.hexdigest(),
        }

    def text(self, text: str) -> str:
        return re.sub(r"%(.)", lambda found: self._tokens.get(found[1], found[0]), text)

    def path(self, text: str) -> Path:
        text = re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), text)
        return Path(os.path.expanduser(self.text(text)))

    def paths(self, lines: list[str]) -> tuple[Path, ...]:
        """Several paths on a line: `ssh -G` drops the quotes, so only a / or ~ begins the next."""
        words = [word for line in lines for word in re.split(r"\s+(?=[/~])", line) if word]
        return tuple(self.path(word) for word in words if word.lower() != "none")
