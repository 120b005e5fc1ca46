"""Everything that can go wrong and that a person can mend, one class each.

RunTestError                   exit status 1
├── UsageError                 exit status 2: a mistake in what was typed or written
│   ├── NodesFileError         the nodes file: names file and line
│   ├── PlanError              what was asked does not fit what the nodes have
│   ├── LogsError              a log that cannot be read as one
│   ├── AllocationError        no Slurm allocation, or one that does not do
│   └── JobRefused             Slurm does not take a batch job as it was asked for
├── NotSubmitted               a batch job that Slurm failed to take, or did not take with others
├── ResultsError               a result that could not be written
├── NodesFailed                several nodes failed; each failure is one of its lines
├── NodeError                  one node failed
│   ├── Unreachable            no route, refused, timed out, name unknown
│   ├── HostKeyUnknown         the host key is in no known_hosts file
│   ├── HostKeyChanged         known_hosts has another key for this host, or revokes this one
│   ├── AuthenticationFailed   no key was accepted, or a key cannot be opened
│   ├── SshConfigError         what ssh_config says of this host cannot be used
│   ├── ShellError             the login shell does not let the program start
│   ├── RemoteDirectoryError   missing, not writable, full, noexec, or somebody else's
│   ├── PythonMissing          no such interpreter, too old, or one that does not start
│   ├── TensorFlowMissing      the interpreter has no TensorFlow
│   ├── PairUnreachable        other nodes do not reach it where TensorFlow will have to
│   ├── PortTaken              a port of the plan belongs to another program by now
│   ├── ProtocolError          the node sent something that is no message
│   ├── ConnectionLost         the connection ended before the run did
│   ├── JobEnded               Slurm ended the job, or a part of it
│   └── NotCleaned             a process that could not be ended, or a directory that stays
└── TaskFailed                 a parameter server or worker failed: host, role, index, why
"""

from __future__ import annotations

from collections.abc import Sequence


class RunTestError(Exception):
    """A failure that is told to a person in `message`, with `mend` saying what to try next."""

    exit_status = 1

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message}. Try: {self.mend}" if self.mend else self.message


class UsageError(RunTestError):
    """A mistake in what was typed or written; nothing was started."""

    exit_status = 2


class NodesFileError(UsageError):
    """The nodes file cannot be used as it is."""


class PlanError(UsageError):
    """What was asked for does not fit what the nodes have."""


class LogsError(UsageError):
    """A log that cannot be read as one."""


class AllocationError(UsageError):
    """There is no Slurm allocation here, or it does not have what was asked for."""


class JobRefused(UsageError):
    """Slurm does not take a batch job as it was asked for."""


class NotSubmitted(RunTestError):
    """A batch job could not be handed to Slurm, or not all of a matrix."""


class ResultsError(RunTestError):
    """A result that could not be written; what was there before is whole."""


class NodeError(RunTestError):
    """One node failed. `node` names it as a person would look for it: alias, file and line."""

    def __init__(self, node: str, reason: str, mend: str = "") -> None:
        super().__init__(f"{node}: {reason}", mend)
        self.node = node
        self.reason = reason


class Unreachable(NodeError):
    """No route, connection refused, timed out, or an unknown name."""


class HostKeyUnknown(NodeError):
    """The host key is in no known_hosts file that ssh would read."""


class HostKeyChanged(NodeError):
    """known_hosts has another key for this host, or revokes the one that it showed."""


class AuthenticationFailed(NodeError):
    """No key was accepted, or a key cannot be opened without a passphrase."""


class SshConfigError(NodeError):
    """What ssh_config says of this host cannot be used."""


class ShellError(NodeError):
    """The login shell or its start-up files do not let the program start."""


class RemoteDirectoryError(NodeError):
    """The remote directory is missing, not writable, full, noexec, or somebody else's."""


class PythonMissing(NodeError):
    """There is no such interpreter on the node, it is too old, or it does not start."""


class TensorFlowMissing(NodeError):
    """The interpreter on the node has no TensorFlow."""


class PairUnreachable(NodeError):
    """A node does not reach another one at an address where TensorFlow will have to."""


class PortTaken(NodeError):
    """A port that was free when the node was greeted belongs to another program by now."""


class ProtocolError(NodeError):
    """The node sent something that is no message."""


class ConnectionLost(NodeError):
    """The connection ended before the run did."""


class JobEnded(NodeError):
    """Slurm ended the job, or a part of it, before the run was over."""


class NotCleaned(NodeError):
    """Something that an earlier run left could not be ended or removed."""


class TaskFailed(NodeError):
    """A parameter server or worker failed. `log_tail` holds its last lines, where known."""

    log_tail: tuple[str, ...] = ()


class NodesFailed(RunTestError):
    """Several nodes failed; all of them are reported together."""

    def __init__(self, failures: Sequence[NodeError]) -> None:
        self.failures = tuple(failures)
        super().__init__("\n".join(str(failure) for failure in self.failures))
