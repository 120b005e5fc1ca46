"""Many runs in a row against hosts of their own: nothing may be left over, on either side.

One launcher makes 200 runs against four namespace hosts, each with everything that a run has: four
ssh connections, the program copied, agents greeted, the network tried, four tasks started, their
steps gathered, steps.csv, run.json and a row written, all stopped and cleaned up. The task is
played (played_strategy.py), because TensorFlow takes seconds of CPU to import and has no part in
what is looked for; then come a few runs of real TensorFlow, with a parameter server.

After each run all that can be left over is counted, and must come back to what it was after the
first few: processes, threads and descriptors of the launcher, its temporary files, processes and
files on the hosts, connections and listening ports there, marks of ports (abstract sockets), and
the memory of all sshds. The launcher's memory may grow by a few KiB a run. All runs must have the
same losses, and the logs exactly one whole row for each.

Needs root. The exit status is 1 where something leaks or differs.

    .venv/bin/python benchmarks/soak.py [--runs 200] [--real 10]
"""

from __future__ import annotations

import argparse
import csv
import gc
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
HOSTS = 4
SETTLING_RUNS = 3
SETTLE_SECONDS = 3.0
STILL_SECONDS = 1.0
# A leak of one descriptor, thread or buffer of paramiko's is more than this for each run.
MOST_KIB_PER_RUN = 8.0
FEWEST_RUNS_FOR_MEMORY = 60
MOST_SSHD_KIB = 2048
REMOTE_DIR = "/tmp/soak"
MODEL, BATCH = "deepmnist", 4
Losses = list[tuple[int, int, float]]  # worker, step, loss


def make_program(folder: Path) -> None:
    """A copy of the program that knows the strategy `played`, to be imported instead of this."""
    for package in ("launcher", "perftest", "models"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.pyc"))
    played = Path(__file__).with_name("played_strategy.py")
    shutil.copy(played, folder / "perftest" / "strategies" / "played.py")
    sys.path[:0] = [str(folder), str(ROOT / "tests")]


@dataclass(frozen=True)
class Count:
    """What there is between two runs. Of the hosts: the sum of all."""

    launcher_kib: int
    launcher_threads: int
    launcher_descriptors: int
    launcher_children: int
    launcher_files: int
    host_processes: int
    host_sshds: int
    host_sshd_kib: int
    host_files: int
    host_connections: int
    host_ports: int
    host_marks: int


class Hosts:
    """The hosts, and what is counted of them."""

    def __init__(self, hosts: Any) -> None:
        self._hosts = hosts
        self._range = range(len(hosts.hosts))

    def processes(self) -> int:
        """All but sshd."""
        return sum(len(self._hosts.processes(index)) for index in self._range)

    def sshds(self) -> list[int]:
        """Each host has one, and more for each connection."""
        spaces = {os.readlink(f"/proc/{self._first(index)}/ns/pid") for index in self._range}
        return [
            pid
            for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if _link(pid, "ns/pid") in spaces and _status(pid).get("Name", "").startswith("sshd")
        ]

    def files(self) -> int:
        """What lies in their /tmp, and so in the remote directory."""
        return sum(
            sum(1 for _ in self._hosts.path(index, "/tmp").rglob("*")) for index in self._range
        )

    def connections(self) -> int:
        """TCP connections, but those that only wait for their time to be over."""
        states = [line.split()[3] for name in ("tcp", "tcp6") for line in self._net(name)]
        return sum(state not in ("0A", "06") for state in states)  # listening, TIME_WAIT

    def ports(self) -> int:
        """TCP ports that are listened on."""
        return sum(len(self._hosts.listening_ports(index)) for index in self._range)

    def marks(self) -> int:
        """Abstract sockets of ours."""
        return sum("@perftest" in line for line in self._net("unix"))

    def _net(self, name: str) -> list[str]:
        tables = [Path(f"/proc/{self._first(index)}/net/{name}") for index in self._range]
        return [line for table in tables for line in table.read_text().splitlines()[1:]]

    def _first(self, index: int) -> int:
        return int(self._hosts.path(index, "/").parts[2])


def _status(pid: int | str) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def _kib(status: dict[str, str]) -> int:
    return int(status.get("VmRSS", "0").split()[0])


def _children() -> int:
    """Processes of the launcher, zombies among them."""
    while True:
        tasks = Path("/proc/self/task").iterdir()
        try:
            return sum(len((task / "children").read_text().split()) for task in tasks)
        except (FileNotFoundError, ProcessLookupError):
            pass  # A thread ended: its children are another's now, who may have been read already.


def count(hosts: Hosts, temporary: Path) -> Count:
    """Count all of it now."""
    status, sshds = _status("self"), hosts.sshds()
    return Count(
        launcher_kib=_kib(status),
        launcher_threads=int(status["Threads"]),
        launcher_descriptors=len(os.listdir("/proc/self/fd")),
        launcher_children=_children(),
        launcher_files=sum(1 for _ in temporary.rglob("*")),
        host_processes=hosts.processes(),
        host_sshds=len(sshds),
        host_sshd_kib=sum(_kib(_status(pid)) for pid in sshds),
        host_files=hosts.files(),
        host_connections=hosts.connections(),
        host_ports=hosts.ports(),
        host_marks=hosts.marks(),
    )


_MEMORY = ("launcher_kib", "host_sshd_kib")


def things(counted: Count) -> dict[str, int]:
    """All but memory: what must be exactly as it was."""
    return {key: value for key, value in asdict(counted).items() if key not in _MEMORY}


def settled(hosts: Hosts, temporary: Path, wanted: Count | None) -> Count:
    """The count once it is as wanted, or when the time for that is up: sshd takes its time.

    Where none is wanted yet, it is the one that has not changed for a while: threads of closed
    connections end a little after their run.
    """
    gc.collect()
    deadline = time.monotonic() + SETTLE_SECONDS
    found, since = count(hosts, temporary), time.monotonic()
    while True:
        quiet = not found.host_processes and found.host_sshds == HOSTS
        still = time.monotonic() - since > STILL_SECONDS
        as_wanted = quiet and still if wanted is None else things(found) == things(wanted)
        if as_wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.02)
        now = count(hosts, temporary)
        if things(now) != things(found):
            since = time.monotonic()
        found = now


class Runner:
    """Makes runs, each as the command `runtest` does, over connections of its own."""

    def __init__(self, made: Any, logs: Path) -> None:
        from launcher.nodes import Node
        from launcher.run_record import Context

        self.made = 0
        self._hosts = made
        self._nodes = [Node(host.address, host.name) for host in made.hosts]
        self._context = Context(logs, ["soak"])

    def run(self, options: Any, nodes: int) -> Losses:
        """One run; each worker's losses. Raises RunTestError."""
        from launcher.measurement import measure
        from launcher.plan import greeting, make_plan
        from launcher.provenance import new_run_id
        from launcher.session import NodeOptions, Session
        from launcher.transports.ssh import SshTransport

        chosen = self._nodes[:nodes]
        session_id = new_run_id(datetime.now(timezone.utc))
        transport = SshTransport(self._hosts.ssh_config)
        with Session(
            chosen, transport, NodeOptions(REMOTE_DIR, sys.executable), session_id
        ) as session:
            session.open(lambda node: greeting(options, node, session.id), _Silent())
            plan = make_plan(options, chosen, session.hellos)
            outcome = measure(session, plan, self._context, _Silent()).outcome
        if outcome.problems:
            raise RuntimeError(f"the run had problems: {outcome.problems}")
        return sorted((record.worker, record.step, record.loss) for record in outcome.records)


class _Silent:
    """Is told of everything and says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@dataclass
class Soaked:
    """Some runs of one kind, and what was counted after each."""

    first: Losses = field(default_factory=list)
    different: int = 0
    counts: list[Count] = field(default_factory=list)
    seconds: float = 0.0

    def problems(self) -> list[str]:
        """What leaks, and what differs."""
        found = []
        if self.different:
            runs = len(self.counts)
            found.append(f"{self.different} of {runs} runs have other losses than the first")
        first, last = self.counts[_settling(self.counts)], self.counts[-1]
        was = things(first)
        for name, value in things(last).items():
            if value != was[name]:
                found.append(f"{_words(name)}: {was[name]} after few runs, {value} after all")
        growth = self.kib_per_run()
        if growth > MOST_KIB_PER_RUN:
            found.append(f"the launcher grows by {growth:.1f} KiB a run")
        if last.host_sshd_kib > first.host_sshd_kib + MOST_SSHD_KIB:
            found.append("the sshds grow")
        return found

    def kib_per_run(self) -> float:
        """How the launcher's memory grows, between the middles of its two later thirds; NaN where
        the runs are too few to say.

        The first third is left out: allocators and caches take what they need once.
        """
        memory = [counted.launcher_kib for counted in self.counts]
        third = len(memory) // 3
        if len(memory) < FEWEST_RUNS_FOR_MEMORY:
            return math.nan
        return (median(memory[-third:]) - median(memory[-2 * third : -third])) / third


def _settling(counts: Sequence[Count]) -> int:
    return min(SETTLING_RUNS, len(counts)) - 1


def _words(name: str) -> str:
    return name.replace("_kib", " memory, KiB").replace("_", " ")


def soak(runs: int, run: Callable[[], Losses], hosts: Hosts, temporary: Path) -> Soaked:
    """Make the runs and count after each."""
    soaked = Soaked()
    started = time.monotonic()
    wanted: Count | None = None
    for number in range(runs):
        losses = run()
        soaked.first = (
            soaked.first or losses
        )  # the others are not kept: they would look like a leak
        soaked.different += losses != soaked.first
        soaked.counts.append(settled(hosts, temporary, wanted))
        if number + 1 <= SETTLING_RUNS:
            wanted = soaked.counts[-1] if number + 1 == SETTLING_RUNS else None
    soaked.seconds = time.monotonic() - started
    return soaked


def print_soaked(what: str, soaked: Soaked) -> None:
    """A line for each thing that was counted."""
    counts, runs = soaked.counts, len(soaked.counts)
    places = sorted({0, _settling(counts), runs // 2, runs - 1})
    print(f"{runs} runs of {what}, {soaked.seconds / runs:.2f} s each")
    print(f"{'after run':28}" + "".join(f"{place + 1:>9}" for place in places))
    for each in fields(Count):
        values = "".join(f"{getattr(counts[place], each.name):>9}" for place in places)
        print(f"{_words(each.name):28}{values}")
    if runs >= FEWEST_RUNS_FOR_MEMORY:
        growth = soaked.kib_per_run()
        print(f"the launcher grows by {growth:.1f} KiB a run in the last two thirds")


def wrong_rows(logs: Path, runs: int) -> list[str]:
    """What is wrong with what was written: rows of the log, folders of the runs."""
    from launcher.results.log import COLUMNS

    (log,) = logs.glob("*.csv")
    text = log.read_text()
    rows = list(csv.DictReader(text.splitlines()))
    folders = {path.name: {file.name for file in path.iterdir()} for path in logs.glob("runs/*")}
    problems = []
    if len(rows) != runs or not text.endswith("\n"):
        problems.append(f"{log.name} has {len(rows)} rows of {runs} runs")
    if any(None in row or None in row.values() for row in rows) or set(rows[0]) != set(COLUMNS):
        problems.append(f"{log.name} has rows that are not whole")
    if {row["run_id"] for row in rows} != set(folders):
        problems.append(f"{log.name} and the folders of the runs are not of the same runs")
    if any(not {"steps.csv", "run.json"} <= files for files in folders.values()):
        problems.append("a folder lacks steps.csv or run.json")
    if any(name.startswith(".") or "tmp" in name for files in folders.values() for name in files):
        problems.append("a folder has a file that was not finished")
    return problems


def main() -> int:
    """Make all runs, print what was counted; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=200, help="with a played task, on four nodes")
    parser.add_argument("--real", type=int, default=10, help="with TensorFlow, on two nodes")
    parser.add_argument("--leak", action="store_true", help="leave things over, to see them found")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        make_program(folder / "program")
        temporary = folder / "tmp"
        temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        from hosts import NamespaceHosts, why_not

        if reason := why_not():
            print(f"soak: {reason}", file=sys.stderr)
            return 2
        with NamespaceHosts(HOSTS) as made:
            leak = Leak(made).more if asked.leak else None
            return soak_all(asked.runs, asked.real, made, folder, temporary, leak)


class Leak:
    """Leaves something over on both sides, so that it can be seen that this is found."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self._open: list[Any] = []

    def more(self) -> None:
        """A descriptor of the launcher, a file and a process of a host."""
        self._open.append(Path("/dev/null").open())  # noqa: SIM115 - it is meant to stay open
        script = "mktemp /tmp/leak.XXXXXX >/dev/null; sleep 600 </dev/null >/dev/null 2>&1 &"
        self._made.run(0, ["sh", "-c", script])


def soak_all(
    runs: int,
    real: int,
    made: Any,
    folder: Path,
    temporary: Path,
    leak: Callable[[], None] | None,
) -> int:
    """Both kinds of runs. The exit status."""
    from launcher.tasks import Options

    played = Options(
        MODEL, BATCH, workers=HOSTS, strategy="played", warmup_steps=2, measured_steps=20
    )
    trained = Options(
        MODEL, BATCH, workers=2, parameter_servers=1, warmup_steps=2, measured_steps=5
    )
    hosts = Hosts(made)
    problems = []
    for what, number, options, nodes in (
        ("a played task on four nodes", runs, played, HOSTS),
        ("TensorFlow on two nodes", real, trained, 2),
    ):
        if not number:
            continue
        logs = folder / f"logs-{options.strategy}"
        runner = Runner(made, logs)

        def run(r: Runner = runner, o: Options = options, n: int = nodes) -> Losses:
            r.made += 1
            if leak is not None and r.made > SETTLING_RUNS:
                leak()
            return r.run(o, n)

        soaked = soak(number, run, hosts, temporary)
        print_soaked(what, soaked)
        problems += [*soaked.problems(), *wrong_rows(logs, number)]
    for problem in problems:
        print(f"LEAK OR DIFFERENCE: {problem}")
    if not problems:
        print("nothing leaks, and all runs of a kind have the same losses")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
