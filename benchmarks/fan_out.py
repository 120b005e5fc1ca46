"""What it costs to open very many nodes, beside `pdsh` running `true` on the same hosts.

The hosts are network namespaces of this machine, each with an sshd of its own. In every round, one
after the other: `pdsh` with as many connections at once as there are hosts, `pdsh` as it comes (32
at once), and runtest, which connects, copies its program, starts Python and hears its greeting from
every node, and then stops all of them. CPU seconds are those of the whole machine, which is client
and all hosts at once; of them, those of the client alone. At the end the sessions are held idle.

Needs root, and `pdsh` (the package of that name) for the comparison. The exit status is 1 where
greeting takes more than 1.5 times as long as the faster `pdsh` does, in the median of the rounds.

    .venv/bin/python benchmarks/fan_out.py [--hosts 64] [--rounds 5] [--idle 30]
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

_STARTED = time.perf_counter()

from launcher.nodes import Node  # noqa: E402 - the imports are timed
from launcher.plan import greeting  # noqa: E402
from launcher.provenance import new_run_id  # noqa: E402
from launcher.session import NodeOptions, Session  # noqa: E402
from launcher.tasks import Options  # noqa: E402
from launcher.transports.ssh import SshTransport  # noqa: E402
from perftest.protocol import Hello  # noqa: E402

_IMPORT_SECONDS = time.perf_counter() - _STARTED

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hosts import NamespaceHosts, why_not  # noqa: E402

BAR = 1.5
REMOTE_DIR = "/tmp"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Seconds of a clock on the wall, and of processors: the client's, and all of the machine's."""

    wall: float
    client: float
    machine: float


class Quiet:
    """An observer that counts."""

    def __init__(self) -> None:
        self.greeted = 0

    def node_greeted(self, node: int, hello: Hello) -> None:
        """One more."""
        self.greeted += 1


def cost_of(work: Callable[[], object]) -> Cost:
    """What a call costs."""
    machine, client, wall = _machine_seconds(), _client_seconds(), time.perf_counter()
    work()
    wall = time.perf_counter() - wall
    return Cost(wall, _client_seconds() - client, _machine_seconds() - machine)


def _client_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _machine_seconds() -> float:
    """Seconds that all processors together have not been idle since the machine started."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS


def new_session(hosts: NamespaceHosts) -> Session:
    """A session of all hosts that is not open yet, with nothing left of an earlier one."""
    nodes = [Node(host.address, host.name) for host in hosts.hosts]
    transport = SshTransport(hosts.ssh_config)
    session_id = new_run_id(datetime.now(timezone.utc))
    return Session(nodes, transport, NodeOptions(REMOTE_DIR, sys.executable), session_id)


def greet_all(session: Session) -> None:
    """Open it, as `runtest` does. Raises NodesFailed unless all nodes greet."""
    options = Options(model="deepmnist", batch_size=4, workers=len(session.nodes))
    seen = Quiet()
    session.open(lambda node: greeting(options, node, session.id), seen)
    assert seen.greeted == len(session.nodes)


def run_pdsh(hosts: NamespaceHosts, fan_out: int) -> None:
    """`true` on all hosts. Raises CalledProcessError, or RuntimeError where one could not do it."""
    done = subprocess.run(
        ["pdsh", "-S", "-R", "ssh", "-f", str(fan_out), "-w", ",".join(_names(hosts)), "true"],
        env={**os.environ, "PDSH_SSH_ARGS_APPEND": f"-F {hosts.ssh_config}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    if done.stderr:
        raise RuntimeError(f"pdsh: {done.stderr}")


def _names(hosts: NamespaceHosts) -> list[str]:
    return [host.name for host in hosts.hosts]


def make_round(hosts: NamespaceHosts, fan_outs: Sequence[int]) -> dict[str, Cost]:
    """One of each, by what it is called."""
    costs = {f"pdsh -f {n}": cost_of(lambda n=n: run_pdsh(hosts, n)) for n in fan_outs}
    session = new_session(hosts)
    with session:
        costs["runtest: greet all"] = cost_of(lambda: greet_all(session))
        costs["runtest: stop all"] = cost_of(session.close)
    _await_no_agents(hosts)
    return costs


def _await_no_agents(hosts: NamespaceHosts) -> None:
    deadline = time.monotonic() + 10.0
    while any(hosts.processes(index) for index in range(len(hosts.hosts))):
        if time.monotonic() > deadline:
            raise RuntimeError("something of ours is left on a host")


@contextmanager
def held(hosts: NamespaceHosts) -> Iterator[tuple[Session, float]]:
    """A greeted session, and the KiB of memory that a node of it takes in this process."""
    gc.collect()
    before = resident_kib()
    with new_session(hosts) as session:
        greet_all(session)
        gc.collect()
        yield session, (resident_kib() - before) / len(session.nodes)


def resident_kib() -> int:
    """Memory of this process that is there."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def idle(hosts: NamespaceHosts, seconds: float) -> tuple[float, float]:
    """CPU seconds per node and second: of this process, and of the agents on the hosts."""
    client, agents = time.process_time(), _agent_seconds(hosts)
    started = time.monotonic()
    threading.Event().wait(seconds)
    node_seconds = (time.monotonic() - started) * len(hosts.hosts)
    return (
        (time.process_time() - client) / node_seconds,
        (_agent_seconds(hosts) - agents) / node_seconds,
    )


def _agent_seconds(hosts: NamespaceHosts) -> float:
    pids = [process.pid for i in range(len(hosts.hosts)) for process in hosts.processes(i)]
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS


def print_rounds(rounds: Sequence[dict[str, Cost]]) -> None:
    """The median of each, and the range of its wall times."""
    print(f"{'':20} {'wall':>7} {'from':>6} {'to':>6}   CPU: client {'machine':>8}")
    for name in rounds[0]:
        costs = [each[name] for each in rounds]
        walls = [cost.wall for cost in costs]
        client = median(cost.client for cost in costs)
        machine = median(cost.machine for cost in costs)
        print(
            f"{name:20} {median(walls):5.2f} s {min(walls):6.2f} {max(walls):6.2f} "
            f"{client:10.2f} s {machine:6.2f} s"
        )


def verdict(rounds: Sequence[dict[str, Cost]], fan_outs: Sequence[int]) -> bool:
    """Print how ours compares with the faster pdsh, in the median of the rounds."""
    ratios = [
        each["runtest: greet all"].wall / min(each[f"pdsh -f {n}"].wall for n in fan_outs)
        for each in rounds
    ]
    good = median(ratios) <= BAR
    print(
        f"greeting ÷ the faster pdsh of its round: {median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}); at most {BAR}: {'met' if good else 'NOT MET'}"
    )
    return good


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds")
    asked = parser.parse_args()
    if reason := why_not():
        print(f"fan_out: {reason}", file=sys.stderr)
        return 2
    fan_outs = list(dict.fromkeys([asked.hosts, 32])) if shutil.which("pdsh") else []
    with NamespaceHosts(asked.hosts) as hosts:
        print(f"{asked.hosts} hosts, {os.cpu_count()} processors, {asked.rounds} rounds")
        with held(hosts) as (_, kib):  # first, while this process is as small as it gets
            print(
                f"launcher: {kib:.0f} KiB of memory for each node, "
                f"{resident_kib() >> 10} MiB in all"
            )
            if asked.idle:
                client, agents = idle(hosts, asked.idle)
                print(
                    f"idle for {asked.idle:.0f} s: per node and second {1e6 * client:.0f} µs of "
                    f"CPU in the launcher, {1e6 * agents:.0f} µs in the agent"
                )
        _await_no_agents(hosts)
        rounds = [make_round(hosts, fan_outs) for _ in range(asked.rounds)]
    print_rounds(rounds)
    print(f"importing the launcher is not in these: {_IMPORT_SECONDS:.2f} s, once")
    if not fan_outs:
        print(
            "fan_out: there is no `pdsh` to compare with: install the package pdsh", file=sys.stderr
        )
        return 2
    return 0 if verdict(rounds, fan_outs) else 1


if __name__ == "__main__":
    sys.exit(main())
