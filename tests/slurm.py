"""A throwaway Slurm cluster for tests: real slurmctld and munged here, a slurmd in each host.

The hosts are those of hosts.py. Commands of Slurm find the cluster by `environment`, from this
machine (a login node, so to speak) and from inside the hosts. `why_no_slurm()` says what is
missing.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hosts import NamespaceHosts, why_not

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_SECONDS = 20.0
# Slurm holds a node for dead after this; runtest has to see it sooner.
SLURMD_TIMEOUT_SECONDS = 120

_CONFIG = """\
ClusterName={cluster}
SlurmctldHost={login}({gateway})
SlurmctldPort={port}
SlurmdPort=6818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=5
SlurmdParameters=config_overrides
SlurmdTimeout={slurmd_timeout}
ReturnToService=2
KillWait=5
MinJobAge=3600
GresTypes=gpu
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_no_slurm() -> str:
    """Why there can be no cluster here and what to do about it, or nothing when there can."""
    if reason := why_not():
        return reason
    for program, package in (
        ("slurmctld", "slurm-wlm"),
        ("slurmd", "slurm-wlm"),
        ("srun", "slurm-wlm"),
        ("munged", "munge"),
    ):
        if shutil.which(program, path=_PATH) is None:
            return f"a Slurm cluster needs `{program}`: install {package}"
    return ""


class SlurmCluster:
    """A context manager: all of these hosts as the nodes of a cluster, idle when it begins.

    The first node is of the type k80, the others are p100: features, and GPUs that Slurm counts.

    environment: what commands of Slurm, and runtest, have to find in theirs.
    """

    def __init__(self, hosts: NamespaceHosts) -> None:
        self.hosts = hosts
        self.folder = hosts.folder / "slurm"
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        self.environment["PATH"] = _PATH
        self._daemons: list[subprocess.Popen[bytes]] = []
        hosts.folder.chmod(0o755)  # munged shows its socket to everybody
        for name in ("state", *(f"spool-{host.name}" for host in hosts.hosts)):
            (self.folder / name).mkdir(parents=True)
        try:
            self._write_config()
            self._start_munged()
            self._daemon(["slurmctld", "-D", "-i", "-f", self.environment["SLURM_CONF"]])
            for index in range(len(hosts.hosts)):
                self.start_node(index)
            self.wait_for("all nodes are idle", lambda: self._idle() == len(hosts.hosts))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SlurmCluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all jobs and daemons."""
        if len(self._daemons) > 1:
            self.run("scancel", "--full", "--user=root", check=False)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(
        self, *argv: str, check: bool = True, seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm to its end."""
        done = subprocess.run(
            argv,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
        return done

    @contextmanager
    def job(self, nodes: int, *options: str) -> Iterator[Job]:
        """An allocation, cancelled at the end if nobody has done so."""
        said = self.run("salloc", "--no-shell", f"-N{nodes}", *options).stderr
        job = Job(self, said.split("job allocation ")[1].split()[0])
        try:
            yield job
        finally:
            self.run("scancel", job.id)
            self.wait_for(f"job {job.id} is over", lambda: job.is_over)

    def start_node(self, index: int) -> None:
        """Start the slurmd of a host."""
        words = ["slurmd", "-D", "-N", self.hosts.hosts[index].name]
        self._daemon([*self.hosts.enter(index), "env", f"PATH={_PATH}", *words])

    def revive(self, index: int) -> None:
        """Turn a host on again that was powered off, and have Slurm use it."""
        host = self.hosts.hosts[index]
        self._daemons = [daemon for daemon in self._daemons if daemon.poll() is None]
        # Slurm would wait for what it believes to be running there.
        self.run("scontrol", "update", f"NodeName={host.name}", "State=DOWN", "Reason=test")
        self.hosts.start(index)
        self.start_node(index)
        resume = ("scontrol", "update", f"NodeName={host.name}", "State=RESUME")
        self.run(*resume, check=False)  # its slurmd may have done so
        self.wait_for(f"{host.name} is up", lambda: self._state_of(host.name) in ("idle", "mix"))

    def _state_of(self, name: str) -> str:
        return self.run("sinfo", "-h", "-n", name, "-o", "%t").stdout.strip()

    def _idle(self) -> int:
        said = self.run("sinfo", "-h", "-N", "-o", "%n %t", check=False).stdout
        return sum(line.split()[1:] == ["idle"] for line in said.splitlines())

    def _write_config(self) -> None:
        kinds = [(host, "p100" if i else "k80") for i, host in enumerate(self.hosts.hosts)]
        nodes = [
            f"NodeName={host.name} NodeAddr={host.address} NodeHostname={host.name} "
            f"CPUs=8 RealMemory=4000 Gres=gpu:{kind}:4 Features={kind} State=UNKNOWN"
            for host, kind in kinds
        ]
        text = _CONFIG.format(
            cluster=f"c{os.getpid()}",
            login=socket.gethostname().partition(".")[0],
            gateway=self.hosts.gateway,
            port=_free_port(),
            folder=self.folder,
            slurmd_timeout=SLURMD_TIMEOUT_SECONDS,
            nodes="\n".join(nodes),
        )
        (self.folder / "slurm.conf").write_text(text)
        # No GPUs, but files that Slurm counts as such: it gives them out by their numbers.
        gres = [f"NodeName={host.name} Name=gpu Type={kind}" for host, kind in kinds]
        lines = "".join(f"{line} File=/dev/tty[1-4]\n" for line in gres)
        (self.folder / "gres.conf").write_text(lines)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def _start_munged(self) -> None:
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        files = {
            "--key-file": key,
            "--socket": self.folder / "munge.socket",
            "--log-file": self.folder / "munged.log",
            "--pid-file": self.folder / "munged.pid",
            "--seed-file": self.folder / "munged.seed",
        }
        options = [f"{option}={path}" for option, path in files.items()]
        self._daemon(["munged", "--foreground", "--force", *options])
        self.wait_for("munged listens", files["--socket"].exists)

    def _daemon(self, argv: Sequence[str]) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(
                    argv,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    start_new_session=True,
                )
            )

    def wait_for(self, what: str, holds: Callable[[], bool], seconds: float = _SECONDS) -> None:
        """Wait until something holds; fail with the ends of all logs where it does not."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                logs = sorted(self.folder.glob("*.log"))
                said = "\n".join(f"{p.name}: {p.read_text()[-800:]}" for p in logs)
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{said}")
            time.sleep(0.05)


_LIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED")


@dataclass(frozen=True)
class Job:
    """An allocation."""

    cluster: SlurmCluster
    id: str

    @property
    def state(self) -> str:
        """In Slurm's word for it."""
        return self._field("JobState")

    @property
    def is_over(self) -> bool:
        """Whether Slurm has ended all of it."""
        return self.state not in _LIVE

    @property
    def inside(self) -> dict[str, str]:
        """What a shell inside of it has more in its environment than one outside."""
        return {
            "SLURM_CONF": self.cluster.environment["SLURM_CONF"],
            "SLURM_JOB_ID": self.id,
            "SLURM_JOB_NODELIST": self._field("NodeList"),
        }

    def _field(self, name: str) -> str:
        said = self.cluster.run("scontrol", "--oneliner", "show", "job", self.id).stdout
        return said.split(f" {name}=")[1].split()[0]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return int(server.getsockname()[1])
