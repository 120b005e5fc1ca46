"""Throwaway hosts for tests: network namespaces on a bridge, each with its own sshd.

Each host has its own address, host name, process tree, host key, and private /tmp and /mnt; the
rest of the file system is shared with this machine. Killing its first process is a power-off.
Needs root, iproute2, util-linux and an OpenSSH server: `why_not()` says what is missing.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_NUMBERS = itertools.count()
_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "sshd"
_ROOT = Path(__file__).resolve().parent.parent
_SECONDS = 10.0

# Ends what is in the namespaces, then takes these away. It waits for the end of its input, which
# also comes when the test process is killed.
_CLEAN_UP = r"""
cat >/dev/null
for ns in $NAMESPACES; do
    for pid in $(ip netns pids "$ns" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
    ip netns del "$ns" 2>/dev/null
done
for link in $LINKS; do ip link del "$link" 2>/dev/null; done
rm -rf -- "$FOLDER"
"""

# Makes the mounts of one host. Paths under /tmp that hosts must see (a checkout or an interpreter
# there) are carried over to the private /tmp.
_BOOT = r"""
set -e
hostname "$NAME"
mount -t tmpfs -o size=512m,mode=0755 tmpfs /mnt
number=0
for path in $KEEP; do
    number=$((number + 1)); mkdir -p "/mnt/.keep$number"; mount --bind "$path" "/mnt/.keep$number"
done
mount -t tmpfs -o size=512m,mode=1777 tmpfs /tmp
number=0
for path in $KEEP; do
    number=$((number + 1)); mkdir -p "$path"; mount --bind "/mnt/.keep$number" "$path"
    umount "/mnt/.keep$number"; rmdir "/mnt/.keep$number"
done
mount --bind "$FOLDER/hosts" /etc/hosts
mount --bind "$FOLDER/shadow" /etc/shadow
for file in /root/.bashrc /root/.profile /root/.bash_profile /root/.ssh/rc; do
    [ ! -e "$file" ] || mount --bind /dev/null "$file"
done
exec "$SSHD" -D -e -f "$1"
"""


@dataclass(frozen=True)
class Process:
    """A process inside a host, by the number that this machine knows it by."""

    pid: int
    argv: tuple[str, ...]


@dataclass
class Host:
    """One host: what it is called, where it is, and its first process while it is on."""

    name: str
    address: str
    namespace: str
    link: str
    folder: Path
    init: subprocess.Popen[bytes] | None = field(default=None, repr=False)


@functools.cache
def why_not() -> str:
    """Why hosts cannot be made here and what to do about it, or nothing when they can."""
    if os.geteuid() != 0:
        return "throwaway hosts need root: run the tests as root"
    for program, package in (
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("ssh", "openssh-client"),
        (_SSHD, "openssh-server"),
    ):
        if shutil.which(program) is None:
            return f"throwaway hosts need `{program}`: install {package}"
    tag = f"rtp{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", tag], capture_output=True, text=True)
    try:
        if made.returncode == 0:
            bridge = ["ip", "-n", tag, "link", "add", "br0", "type", "bridge"]
            made = subprocess.run(bridge, capture_output=True, text=True)
    finally:
        subprocess.run(["ip", "netns", "del", tag], capture_output=True)
    if made.returncode != 0:
        said = made.stderr.strip() or "not permitted"
        return f"network namespaces cannot be made here ({said}): run in a privileged container"
    return ""


class NamespaceHosts:
    """A context manager of `count` hosts called node0, node1, ... with key, config and nodes file.

    Attributes: hosts; folder (of this set's files); ssh_config, known_hosts, key; gateway, this
    machine's address on the hosts' network; free_address, one where nothing is.
    """

    def __init__(self, count: int) -> None:
        reason = why_not()
        if reason:
            raise RuntimeError(reason)
        self._ssh_ports: set[int] = set()
        self._claim, prefix = _claim_network()
        self.folder = Path(tempfile.mkdtemp(prefix="runtest-hosts-", dir="/var/tmp"))
        tag = f"{os.getpid():x}{next(_NUMBERS):x}"
        self._bridge = f"rtb{tag}"
        self.gateway, self.free_address = f"{prefix}.1", f"{prefix}.250"
        self.ssh_config, self.known_hosts = self.folder / "ssh_config", self.folder / "known_hosts"
        self.key = self.folder / "id"
        self.hosts = [
            Host(
                name=f"node{index}",
                address=f"{prefix}.{index + 11}",
                namespace=f"rt{tag}n{index}",
                link=f"rt{tag}v{index}",
                folder=self.folder / f"node{index}",
            )
            for index in range(count)
        ]
        self._cleaner = self._start_cleaner()
        try:
            self._make_files()
            self._make_network()
            for index in range(count):
                self._launch(self.hosts[index])
            for host in self.hosts:
                self._await_sshd(host, 22)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> NamespaceHosts:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the hosts and all that is in them, and take the network away."""
        assert self._cleaner.stdin is not None
        if not self._cleaner.stdin.closed:
            self._cleaner.stdin.close()
            self._cleaner.wait()
            for host in self.hosts:
                if host.init is not None:
                    host.init.wait()
            self._claim.close()

    def nodes_file(self, *indices: int, keys: str = "") -> Path:
        """A nodes file of all hosts, or of those given, with `keys` at the end of each line."""
        hosts = [self.hosts[index] for index in indices] or self.hosts
        name = "nodes" + "".join(f"-{index}" for index in indices)
        path = self.folder / name
        path.write_text("".join(f"{host.address} {host.name} {keys}\n" for host in hosts))
        return path

    def power_off(self, index: int, *, silent: bool = False) -> None:
        """Kill all of a host at once; silently, as a real one: no peer hears of it."""
        host = self.hosts[index]
        assert host.init is not None
        if silent:
            self.link_down(index)
        host.init.kill()
        host.init.wait()
        host.init = None

    def start(self, index: int) -> None:
        """Turn a host on again."""
        self.link_up(index)
        self._launch(self.hosts[index])
        self._await_sshd(self.hosts[index], 22)
        self.forget_outage(index)

    def link_down(self, index: int) -> None:
        """Cut a host's cable."""
        _ip(f"link set {self.hosts[index].link} down")

    def link_up(self, index: int) -> None:
        """Mend a host's cable."""
        _ip(f"link set {self.hosts[index].link} up")

    def forget_outage(self, index: int) -> None:
        """Have all hosts ask anew where the others are, once a host's cable is known to be mended.

        Who has asked in vain while it was cut, three times in three seconds, would still be told
        within the fourth that there is no route.
        """
        host = self.hosts[index]
        state = ["ip", "-n", host.namespace, "link", "show", "dev", "eth0"]
        end = time.monotonic() + _SECONDS
        while "LOWER_UP" not in subprocess.run(state, capture_output=True, text=True).stdout:
            if time.monotonic() > end:
                raise RuntimeError(f"the cable of {host.name} is not mended")
            time.sleep(0.01)
        for each in self.hosts:
            _ip("neigh flush dev eth0", namespace=each.namespace)
        _ip(f"neigh flush dev {self._bridge}")

    @contextmanager
    def shaped(self, mbit: int) -> Iterator[None]:
        """Have each link carry so many Mbit/s towards its host: of two hosts, each way.

        Raises RuntimeError where the kernel cannot (it needs `sch_tbf`).
        """
        shape = f"root tbf rate {mbit}mbit burst 512k latency 50ms"
        narrow = []
        try:
            for host in self.hosts:
                _run("tc", "qdisc", "add", "dev", host.link, *shape.split())
                narrow.append(host.link)
            yield
        finally:
            for link in narrow:
                _run("tc", "qdisc", "del", "dev", link, "root")

    def processes(self, index: int) -> list[Process]:
        """What is alive inside a host, but for sshd."""
        init = self.hosts[index].init
        if init is None:
            return []
        inside = os.readlink(f"/proc/{init.pid}/ns/pid_for_children")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                process = _process(entry, inside)
                if process is not None:
                    found.append(process)
        return found

    def listening_ports(self, index: int) -> set[int]:
        """The TCP ports on which something listens inside a host, but for ssh's own."""
        ports: set[int] = set()
        for table in ("tcp", "tcp6"):
            text = Path(f"/proc/{self._first_process(index)}/net/{table}").read_text()
            for line in text.splitlines()[1:]:
                words = line.split()
                if words[3] == "0A":
                    ports.add(int(words[1].rpartition(":")[2], 16))
        return ports - {22} - self._ssh_ports

    def run(
        self, index: int, argv: Sequence[str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside a host, without ssh."""
        words = [*self.enter(index), *argv]
        return subprocess.run(words, check=check, capture_output=True, text=True)

    def enter(self, index: int) -> list[str]:
        """The words in front of a command that is to run inside a host."""
        words = ["nsenter", "--target", str(self._first_process(index)), "--mount", "--uts"]
        return [*words, "--ipc", "--net", "--pid", "--"]

    def path(self, index: int, inside: str) -> Path:
        """Where this machine finds a host's own file or folder (of its private /tmp, say)."""
        return Path(f"/proc/{self._first_process(index)}/root") / inside.lstrip("/")

    def serve(self, index: int, port: int, *options: str) -> None:
        """Start one more sshd in a host, with lines of sshd_config that go before the usual."""
        host = self.hosts[index]
        self._ssh_ports.add(port)
        config = host.folder / f"sshd_config.{port}"
        lines = [*options, f"ListenAddress {host.address}:{port}", *self._sshd_lines(host)]
        config.write_text("\n".join(lines) + "\n")
        self.run(index, [_SSHD, "-E", str(host.folder / f"sshd.{port}.log"), "-f", str(config)])
        self._await_sshd(host, port)

    def host_key(self, index: int) -> str:
        """The kind and base64 text of a host's public key, as in known_hosts."""
        words = (self.hosts[index].folder / "host_key.pub").read_text().split()
        return " ".join(words[:2])

    def _first_process(self, index: int) -> int:
        init = self.hosts[index].init
        assert init is not None, "the host is off"
        return int(Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()[0])

    def _start_cleaner(self) -> subprocess.Popen[bytes]:
        names = {
            "NAMESPACES": " ".join(host.namespace for host in self.hosts),
            "LINKS": " ".join([*(host.link for host in self.hosts), self._bridge]),
            "FOLDER": str(self.folder),
        }
        return subprocess.Popen(
            ["sh", "-c", _CLEAN_UP],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **names},
            start_new_session=True,
        )

    def _make_files(self) -> None:
        self.folder.chmod(0o700)
        make_key(self.key)
        known, config = [], []
        hosts = ["127.0.0.1 localhost", f"{self.gateway} {socket.gethostname()}"]
        for host in self.hosts:
            host.folder.mkdir()
            make_key(host.folder / "host_key")
            lines = [f"ListenAddress {host.address}:22", *self._sshd_lines(host)]
            (host.folder / "sshd_config").write_text("\n".join(lines) + "\n")
            key = " ".join((host.folder / "host_key.pub").read_text().split()[:2])
            known.append(f"{host.address} {key}\n")
            config.append(f"Host {host.name}\n  HostName {host.address}\n")
            hosts.append(f"{host.address} {host.name}")
        config.append(
            f"Host *\n  User root\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  IdentityAgent none\n  UserKnownHostsFile {self.known_hosts}\n"
            "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
        )
        self.known_hosts.write_text("".join(known))
        self.ssh_config.write_text("".join(config))
        (self.folder / "hosts").write_text("\n".join(hosts) + "\n")
        # A locked root (a `!` in shadow) may not log in even with a key.
        shadow = re.sub(r"(?m)^root:[^:]*:", "root:*:", Path("/etc/shadow").read_text())
        (self.folder / "shadow").touch(0o600)
        (self.folder / "shadow").write_text(shadow)

    def _sshd_lines(self, host: Host) -> list[str]:
        lines = [
            f"HostKey {host.folder}/host_key",
            f"AuthorizedKeysFile {self.key}.pub",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "MaxStartups 200:30:400",
            "MaxSessions 100",
            "Subsystem sftp internal-sftp",
        ]
        return lines + (["PerSourcePenalties no"] if _sshd_penalises() else [])

    def _make_network(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        outside = [
            f"link add {self._bridge} type bridge",
            f"addr add {self.gateway}/24 dev {self._bridge}",
            f"link set {self._bridge} up",
        ]
        for host in self.hosts:
            outside += [
                f"netns add {host.namespace}",
                f"link add {host.link} type veth peer name eth0 netns {host.namespace}",
                f"link set {host.link} master {self._bridge} up",
            ]
        _ip(*outside)
        for host in self.hosts:
            _ip(
                f"addr add {host.address}/24 dev eth0",
                "link set lo up",
                "link set eth0 up",
                f"route add default via {self.gateway}",
                namespace=host.namespace,
            )

    def _launch(self, host: Host) -> None:
        names = {
            "NAME": host.name,
            "FOLDER": str(self.folder),
            "SSHD": _SSHD,
            "KEEP": " ".join(_hidden_by_tmp()),
        }
        words = ["ip", "netns", "exec", host.namespace, "unshare", "--uts", "--ipc", "--mount"]
        words += ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", _BOOT, "sh"]
        with (host.folder / "log").open("ab") as log:
            host.init = subprocess.Popen(
                [*words, str(host.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **names},
                cwd="/",
                start_new_session=True,
            )

    def _await_sshd(self, host: Host, port: int) -> None:
        end = time.monotonic() + _SECONDS
        while True:
            try:
                with socket.create_connection((host.address, port), timeout=1) as link:
                    if link.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            if time.monotonic() > end or (host.init is not None and host.init.poll() is not None):
                log = (host.folder / "log").read_text(errors="replace")[-500:]
                raise RuntimeError(f"no sshd on {host.name}, port {port}: {log}")
            time.sleep(0.01)


def make_key(path: Path, passphrase: str = "") -> None:
    """Write a new ed25519 key pair to `path` and `path`.pub."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "throwaway"]
    subprocess.run([*words, "-f", str(path)], check=True, stdin=subprocess.DEVNULL)


def _ip(*commands: str, namespace: str | None = None) -> None:
    words = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    text = "".join(f"{command}\n" for command in commands)
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip: {done.stderr.strip()} ({commands})")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def _claim_network() -> tuple[socket.socket, str]:
    """A /24 that no other test process has; it is ours while the socket lives."""
    routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True).stdout
    for number in range(os.getpid(), os.getpid() + 30000):
        prefix = f"10.{128 + number // 250 % 120}.{number % 250}"
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0runtest-hosts-{prefix}")
        except OSError:
            claim.close()
            continue
        if f"{prefix}." not in routes:
            return claim, prefix
        claim.close()
    raise RuntimeError("no free network for throwaway hosts")


def _hidden_by_tmp() -> list[str]:
    """What hosts need of the shared /tmp: this checkout and this interpreter, if they are there."""
    needed = {str(_ROOT), *(str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix))}
    return sorted(path for path in needed if path.startswith(("/tmp/", "/mnt/")))


@functools.cache
def _sshd_penalises() -> bool:
    """Whether sshd is new enough (9.8) to shut out addresses whose logins failed."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr
    found = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= (9, 8)


def _process(entry: Path, namespace: str) -> Process | None:
    """The process of a folder in /proc if it is in that PID namespace and no sshd."""
    try:
        if os.readlink(entry / "ns" / "pid") != namespace:
            return None
        argv = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        name = (entry / "comm").read_text()
    except OSError:
        return None  # it has just ended
    if argv == [b""] or name.startswith("sshd"):
        return None
    return Process(int(entry.name), tuple(word.decode(errors="replace") for word in argv))
