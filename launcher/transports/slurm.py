"""The `slurm` transport: the script is a step of the job that we are in, on one of its nodes.

srun's standard streams are the script's. It is told to share what the job has (--overlap) and to
print what comes at once (-u); what the job's own options say of other steps is kept from it.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from launcher.errors import NodeError, Unreachable
from launcher.nodes import Node
from launcher.transports.base import Connection, Transport
from launcher.transports.local import LocalConnection
from launcher.transports.slurm_words import SlurmWords

_KILL_SECONDS = 3.0
_LETTING_GO_SECONDS = 1.0
# salloc and sbatch leave these for the steps of their job: a step of one task would be refused, or
# bound to one processor, by what is meant for the job's own.
_OF_OTHER_STEPS = (
    *("SLURM_GPUS", "SLURM_GPUS_PER_SOCKET"),
    *("SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_GPUS_PER_TASK"),
    *("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_MEM_PER_NODE", "SLURM_CPU_BIND"),
    *("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_NTASKS_PER_CORE"),
    *("SLURM_NTASKS_PER_GPU", "SLURM_NTASKS_PER_SOCKET", "SLURM_NTASKS_PER_TRES", "SLURM_NNODES"),
    *("SLURM_EXACT", "SLURM_EXCLUSIVE", "SLURM_WHOLE", "SLURM_HINT", "SLURM_THREADS_PER_CORE"),
    *("SLURM_LABELIO", "SLURM_STDINMODE", "SLURM_STDOUTMODE", "SLURM_STDERRMODE"),
    *("SLURM_DISTRIBUTION", "SLURM_ARBITRARY", "SLURM_WAIT", "SLURM_KILL_BAD_EXIT"),
)


class SlurmTransport(Transport):
    """Starts scripts as steps of a job.

    job: its id.  environment: what srun, and so the script, is started with.
    """

    name = "slurm"

    def __init__(self, job: str, environment: Mapping[str, str]) -> None:
        self._job = job
        self._environment = {k: v for k, v in environment.items() if k not in _OF_OTHER_STEPS}
        self._options = ["--overlap", "--mem=0", "--mpi=none", "--chdir=/", "--quiet", "-u"]
        if gpus := _gpus_of_a_node(environment):
            self._options.append(f"--gpus-per-node={gpus}")

    def open(self, node: Node, script: str) -> Connection:
        try:
            process = subprocess.Popen(
                self._step(node, "sh", "-c", script),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=self._environment,
                start_new_session=True,  # a Ctrl-C at the terminal is for us alone
            )
        except (OSError, ValueError) as error:
            raise Unreachable(node.label, f"srun could not be started: {error}") from error
        return SlurmConnection(process, node, self)

    def describe(self, node: Node, script: str) -> str:
        return shlex.join(self._step(node, "sh", "-c", script))

    def explain(self, node: Node, words: SlurmWords) -> NodeError | None:
        """What Slurm has said of why a connection ended."""
        return words.error(node.label, self._job)

    def kill(self, node: Node, pid: int) -> None:
        """End a process of the node by a step of its own. Bounded; raises nothing."""
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                self._step(node, "kill", "-9", str(pid)),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_KILL_SECONDS,
                start_new_session=True,
                check=False,
            )

    def _step(self, node: Node, *argv: str) -> list[str]:
        words = ["srun", "--jobid", self._job, "-N1", "-n1", "-w", node.alias]
        return [*words, *self._options, *argv]


class SlurmConnection(LocalConnection):
    """The pipes of an srun.

    srun ends when its step has, but may wait for minutes for a node that is gone. So it is killed
    where the node was given up (`kill`), where it says itself that it has lost it, or where nothing
    was ever heard of the node. Slurm ends what is left of a step whose srun is gone.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], node: Node, transport: SlurmTransport
    ) -> None:
        super().__init__(process, node.label)
        self._node = node
        self._transport = transport
        self._words = SlurmWords()
        self._is_heard = False
        self._is_given_up = False

    def receive(self) -> bytes:
        data = super().receive()
        self._is_heard = self._is_heard or bool(data)
        return data

    def receive_errors(self) -> bytes:
        while data := super().receive_errors():
            theirs = self._words.take(data)
            if self._words.tell_of_loss:
                self._give_up()
            if theirs:
                return theirs
        return self._words.end()

    def wait(self, timeout_seconds: float) -> int | None:
        """srun's status is the script's, or 128 + n for a signal n, or its own end by ours."""
        status = super().wait(timeout_seconds)
        if status is None:
            return None
        if status < 0 or self._words.tell_of_loss:
            return -1
        return 128 - status if 128 < status <= 192 else status

    def explain(self) -> NodeError | None:
        return self._transport.explain(self._node, self._words)

    def close(self) -> None:
        super().close()
        if not self._is_heard or self._is_given_up:
            self._end_srun()

    def kill(self, pid: int) -> None:
        self._transport.kill(self._node, pid)
        self._is_given_up = True

    def _give_up(self) -> None:
        self._is_given_up = True
        self._process.kill()

    def _end_srun(self) -> None:
        if super().wait(_LETTING_GO_SECONDS) is None:
            self._process.kill()


def _gpus_of_a_node(environment: Mapping[str, str]) -> int:
    """How many GPUs a step has to ask for, where the job asked for its GPUs in all (--gpus).

    A step of such a job that asks for none is refused, and one of any other job has all there are.
    """
    total = environment.get("SLURM_GPUS", "").rpartition(":")[2]
    here = environment.get("SLURM_GPUS_ON_NODE", "")
    nodes = environment.get("SLURM_JOB_NUM_NODES", "")
    if not total.isdecimal():
        return 0
    if here.isdecimal():
        return int(here)
    return int(total) // int(nodes) if nodes.isdecimal() and int(nodes) else 0
