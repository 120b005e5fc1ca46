"""Authentication as ssh does it without anybody at the keyboard: agent and key files only.

The order is OpenSSH's: the agent's keys that ssh_config names, the agent's other keys (unless
IdentitiesOnly), then the key files. Passwords and passphrases are never asked for.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH
from paramiko.auth_strategy import AuthResult, AuthSource, AuthStrategy

from launcher.errors import AuthenticationFailed
from launcher.transports.known_hosts import ssh_keygen
from launcher.transports.ssh_config import SshTarget
from launcher.transports.ssh_errors import printable

_AGENT_SECONDS = 5
_ASKS = {"password": "a password", "keyboard-interactive": "a password or code"}


@dataclass(frozen=True)
class Trouble:
    """A key that could not be used: why, and what would mend it."""

    reason: str
    mend: str


class KeyAgent(AgentSSH):
    """The ssh agent behind a socket; without keys when there is none or it does not answer."""

    def __init__(self, path: str | None) -> None:
        super().__init__()
        if not path:
            return
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(_AGENT_SECONDS)
        try:
            link.connect(path)
            self._connect(link)  # type: ignore[attr-defined]
        except (OSError, paramiko.SSHException, ValueError, IndexError):
            link.close()
            self._keys = ()

    def close(self) -> None:
        """Let go of the agent's socket."""
        self._close()  # type: ignore[attr-defined]


class KeyAuthentication(AuthStrategy):
    """Tries what `target` allows over a paramiko transport."""

    def __init__(self, target: SshTarget, label: str) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self._target = target
        self._label = label
        self._troubles: list[Trouble] = []
        self._tried = 0

    def authenticate(self, transport: paramiko.Transport) -> AuthResult:
        """Log in. Raises AuthenticationFailed; what the network raises passes through."""
        allowed = self._methods(transport)
        if not allowed:
            return AuthResult(strategy=self)
        agent = KeyAgent(self._target.identity_agent)
        try:
            if "publickey" in allowed:
                for key in self._keys(agent):
                    if self._accepts(transport, key):
                        return AuthResult(strategy=self)
        finally:
            agent.close()
        raise self._failure(allowed)

    def get_sources(self) -> Iterator[AuthSource]:
        """Nothing: `authenticate` goes its own way."""
        return iter(())

    def _methods(self, transport: paramiko.Transport) -> list[str]:
        """What the server asks for; nothing when it lets us in as we are."""
        try:
            transport.auth_none(self._target.user)
        except paramiko.BadAuthenticationType as refusal:
            return list(refusal.allowed_types)
        except paramiko.AuthenticationException as error:
            raise EOFError from error  # the connection broke
        return []

    def _accepts(self, transport: paramiko.Transport, key: paramiko.PKey) -> bool:
        self._tried += 1
        try:
            more = transport.auth_publickey(self._target.user, key)
        except paramiko.BadAuthenticationType:
            return False
        except paramiko.SSHException as error:
            if not transport.is_active():
                raise AuthenticationFailed(
                    self._label,
                    f"{self._who} hung up after {self._tried} keys: {printable(error)}",
                    "name the right key with IdentityFile and IdentitiesOnly yes in ssh_config",
                ) from error
            return False  # a wrong key, or an agent that would not sign
        if more:
            raise AuthenticationFailed(
                self._label,
                f"{self._who} wants {_asked(more)} besides the key, which runtest never types",
                self._target.command,
            )
        return True

    @property
    def _who(self) -> str:
        return f"{self._target.user}@{self._target.hostname}"

    def _keys(self, agent: KeyAgent) -> Iterator[paramiko.PKey]:
        held = list(agent.get_keys())
        named = {
            found
            for path in self._target.identity_files
            if held and (found := public_fingerprint(path, self._label))
        }
        fingerprints = {id(key): _fingerprint(key) for key in held}
        yield from (key for key in held if fingerprints[id(key)] in named)
        if not self._target.identities_only:
            yield from (key for key in held if fingerprints[id(key)] not in named)
        in_agent = set(fingerprints.values())
        for path in self._target.identity_files:
            loaded = load_key(path)
            if isinstance(loaded, paramiko.PKey):
                if loaded.public_blob or _fingerprint(loaded) not in in_agent:
                    yield loaded
            elif loaded and public_fingerprint(path, self._label) not in in_agent:
                self._troubles.append(loaded)

    def _failure(self, allowed: list[str]) -> AuthenticationFailed:
        if self._troubles:
            first = self._troubles[0]
            return AuthenticationFailed(
                self._label, f"{self._who} cannot be logged in to: {first.reason}", first.mend
            )
        if "publickey" not in allowed:
            reason = f"{self._who} asks for {_asked(allowed)}, which runtest never types"
        elif self._tried:
            keys = "1 key" if self._tried == 1 else f"{self._tried} keys"
            reason = f"{self._who}: permission denied ({keys} tried)"
        else:
            reason = f"{self._who}: permission denied (no key to try)"
        return AuthenticationFailed(self._label, reason, self._target.command_with("-v"))


def _asked(methods: list[str]) -> str:
    names = [_ASKS.get(method, printable(method)) for method in methods]
    return " or ".join(dict.fromkeys(names)) or "something else"


def load_key(path: Path) -> paramiko.PKey | Trouble | None:
    """The private key in a file, what is wrong with it, or None when there is no such file."""
    closing = shlex.join(["chmod", "600", str(path)])
    try:
        status = path.stat()
        if status.st_uid == os.getuid() and status.st_mode & 0o077:
            # ssh ignores such keys, too.
            return Trouble(f"others can read the key {path}", closing)
        loaded: paramiko.PKey = paramiko.PKey.from_path(path)
        return loaded
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return Trouble(f"the key {path} may not be read", closing)
    except (paramiko.PasswordRequiredException, TypeError):
        return Trouble(
            f"the key {path} has a passphrase and the ssh agent does not hold it",
            shlex.join(["ssh-add", str(path)]),
        )
    except Exception as error:  # paramiko and cryptography raise all sorts for a damaged key
        return Trouble(
            f"the key {path} cannot be used: {printable(error) or type(error).__name__}",
            shlex.join(["ssh-keygen", "-y", "-f", str(path)]),
        )


def public_fingerprint(path: Path, label: str) -> str | None:
    """SHA256 of the public half of a key file, even an encrypted one, or of FILE.pub; or None.

    Raises SshConfigError when there is no ssh-keygen.
    """
    for file in (path, path.with_name(path.name + ".pub")):
        if file.is_file():
            found = re.search(rb"SHA256:\S+", ssh_keygen(["-l", "-f", str(file)], label).stdout)
            if found:
                return found[0].decode()
    return None


def _fingerprint(key: paramiko.PKey) -> str | None:
    try:
        return str(key.fingerprint)
    except (AttributeError, paramiko.SSHException, ValueError):
        return None  # a key of a kind that paramiko does not know, held by the agent
