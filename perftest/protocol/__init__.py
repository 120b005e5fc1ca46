"""The messages between launcher, agent and task: frozen dataclasses <-> JSON lines.

Needs the standard library alone, because it runs on the operator's machine and on every node.

    launcher -> agent     Greet · Start · Go · Finish · Heartbeat · Stop
    agent    -> launcher  Hello · FromTask · Exited · Paused · Log · RunEnded · AgentFailed
                          Heartbeat
    before the tasks: Listen, Probe, EndProbe -> Listening, Probed
    `check`: ClockQuery, Inspect, CountParameters -> ClockReading, Inspection, ParameterCount,
                          ErrandFailed
    `clean`: FindLeftovers, Clean -> Leftovers, Cleaned
    agent    -> task      Assignment, then Go            (the task's standard input)
    task     -> agent     Phase · Ready · StepTimes · Finished · Failed     (a private descriptor)
                          TracePiece
                          ServersHold · ServerLoad
                          Staged · TrainingStarts · Progress · Evaluated · Saved · RocCurve

A line is `{"type": "step_times", ...}`. What is decoded is checked against the annotations, so
that nothing of the wrong type gets past this file, whoever sent it.
"""

from __future__ import annotations

from typing import Any

from perftest import records
from perftest.protocol.inspection import ClockQuery as ClockQuery
from perftest.protocol.inspection import ClockReading as ClockReading
from perftest.protocol.inspection import CountParameters as CountParameters
from perftest.protocol.inspection import ErrandFailed as ErrandFailed
from perftest.protocol.inspection import GpuUse as GpuUse
from perftest.protocol.inspection import Inspect as Inspect
from perftest.protocol.inspection import Inspection as Inspection
from perftest.protocol.inspection import NetworkInterface as NetworkInterface
from perftest.protocol.inspection import ParameterCount as ParameterCount
from perftest.protocol.inspection import ResolvedName as ResolvedName
from perftest.protocol.jobs import PARAMETER_SERVER as PARAMETER_SERVER
from perftest.protocol.jobs import WORKER as WORKER
from perftest.protocol.jobs import Assignment as Assignment
from perftest.protocol.jobs import Cluster as Cluster
from perftest.protocol.jobs import Job as Job
from perftest.protocol.jobs import Place as Place
from perftest.protocol.leftovers import Clean as Clean
from perftest.protocol.leftovers import Cleaned as Cleaned
from perftest.protocol.leftovers import FindLeftovers as FindLeftovers
from perftest.protocol.leftovers import Leftover as Leftover
from perftest.protocol.leftovers import Leftovers as Leftovers
from perftest.protocol.nodes import Gpu as Gpu
from perftest.protocol.nodes import Greet as Greet
from perftest.protocol.nodes import Hello as Hello
from perftest.protocol.nodes import PortRequest as PortRequest
from perftest.protocol.nodes import Versions as Versions
from perftest.protocol.probes import MOST_PORTS as MOST_PORTS
from perftest.protocol.probes import MOST_PROBE_SECONDS as MOST_PROBE_SECONDS
from perftest.protocol.probes import MOST_TARGETS as MOST_TARGETS
from perftest.protocol.probes import MOST_TRANSFER_BYTES as MOST_TRANSFER_BYTES
from perftest.protocol.probes import MOST_TRANSFER_SECONDS as MOST_TRANSFER_SECONDS
from perftest.protocol.probes import NAME_UNKNOWN as NAME_UNKNOWN
from perftest.protocol.probes import NO_ROUTE as NO_ROUTE
from perftest.protocol.probes import OUTCOMES as OUTCOMES
from perftest.protocol.probes import REACHED as REACHED
from perftest.protocol.probes import REFUSED as REFUSED
from perftest.protocol.probes import STRANGER as STRANGER
from perftest.protocol.probes import TIMED_OUT as TIMED_OUT
from perftest.protocol.probes import EndProbe as EndProbe
from perftest.protocol.probes import Listen as Listen
from perftest.protocol.probes import Listening as Listening
from perftest.protocol.probes import PortProblem as PortProblem
from perftest.protocol.probes import Probe as Probe
from perftest.protocol.probes import Probed as Probed
from perftest.protocol.probes import ProbeResult as ProbeResult
from perftest.protocol.probes import ProbeTarget as ProbeTarget
from perftest.protocol.runs import AgentFailed as AgentFailed
from perftest.protocol.runs import Exited as Exited
from perftest.protocol.runs import Finish as Finish
from perftest.protocol.runs import FromTask as FromTask
from perftest.protocol.runs import Go as Go
from perftest.protocol.runs import Heartbeat as Heartbeat
from perftest.protocol.runs import Log as Log
from perftest.protocol.runs import Paused as Paused
from perftest.protocol.runs import RunEnded as RunEnded
from perftest.protocol.runs import Start as Start
from perftest.protocol.runs import Stop as Stop
from perftest.protocol.sharing import LEAST_CUT_BYTES as LEAST_CUT_BYTES
from perftest.protocol.sharing import Piece as Piece
from perftest.protocol.sharing import place_variables as place_variables
from perftest.protocol.tasks import MOST_TRACE_BYTES as MOST_TRACE_BYTES
from perftest.protocol.tasks import TRACE_PIECE_BYTES as TRACE_PIECE_BYTES
from perftest.protocol.tasks import Failed as Failed
from perftest.protocol.tasks import Finished as Finished
from perftest.protocol.tasks import Phase as Phase
from perftest.protocol.tasks import Ready as Ready
from perftest.protocol.tasks import ServerHolds as ServerHolds
from perftest.protocol.tasks import ServerLoad as ServerLoad
from perftest.protocol.tasks import ServersHold as ServersHold
from perftest.protocol.tasks import StepTimes as StepTimes
from perftest.protocol.tasks import TaskMessage as TaskMessage
from perftest.protocol.tasks import TracePiece as TracePiece
from perftest.protocol.training import SYNTHETIC as SYNTHETIC
from perftest.protocol.training import TEST as TEST
from perftest.protocol.training import TRAIN as TRAIN
from perftest.protocol.training import VALIDATION as VALIDATION
from perftest.protocol.training import Data as Data
from perftest.protocol.training import Evaluated as Evaluated
from perftest.protocol.training import Optimizer as Optimizer
from perftest.protocol.training import Progress as Progress
from perftest.protocol.training import RocCurve as RocCurve
from perftest.protocol.training import Saved as Saved
from perftest.protocol.training import Staged as Staged
from perftest.protocol.training import Training as Training
from perftest.protocol.training import TrainingStarts as TrainingStarts
from perftest.records import MessageError as MessageError

VERSION = 1

# The agent's first line. A login shell may print before it; nothing before it is read as messages.
MARKER = f"perftest-agent-protocol {VERSION}"

# A longer line is refused, so that a broken node cannot fill the launcher's memory. The longest of
# ours is Start, with an address for each of 65,536 workers.
MAX_LINE_BYTES = 4 << 20

HEARTBEAT_SECONDS = 5.0
HEARTBEAT_LIMIT_SECONDS = 30.0


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


_CODEC = records.Codec(
    {
        _snake(message.__name__): message
        for message in (
            *(Greet, Start, Go, Finish, Heartbeat, Stop),
            *(Hello, FromTask, Exited, Paused, Log, RunEnded, AgentFailed),
            *(Listen, Listening, Probe, Probed, EndProbe),
            *(Phase, Ready, StepTimes, Finished, Failed, Assignment, TracePiece),
            *(ServersHold, ServerLoad),
            *(ClockQuery, ClockReading, Inspect, Inspection),
            *(CountParameters, ParameterCount, ErrandFailed),
            *(FindLeftovers, Leftovers, Clean, Cleaned),
            *(Staged, TrainingStarts, Progress, Evaluated, Saved, RocCurve),
        )
    }
)


def encode(message: Any) -> bytes:
    """One message as a line, with its newline. NaN and infinities become null."""
    return _CODEC.encode(message)


def decode(line: bytes) -> Any:
    """The message that a line holds.

    Raises MessageError when it holds none, or one whose fields are not of their types.
    """
    if len(line) > MAX_LINE_BYTES:
        raise MessageError(f"a line of more than {MAX_LINE_BYTES >> 20} MiB")
    return _CODEC.decode(line)
