"""What a plan is made of: the options it follows, its tasks, and the plan itself. Values alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from launcher.binding import Binding
from launcher.nodes import Node
from perftest.protocol import PARAMETER_SERVER, WORKER, Data, Hello, Job, Optimizer, Place, Training

DEFAULT_FIRST_PORT = 2222
# Traced with --profile: enough to see what repeats, few enough for a trace of some megabytes.
PROFILE_STEPS = 5

SINGLE = "single"
PARAMETER_SERVER_STRATEGY = "parameter_server"
ALL_REDUCE = "all_reduce"
# Where gradients are added up before they go to the parameter servers.
AUTO, ON_NODE, NOWHERE = "auto", "node", "none"
# What a number of them takes on its way there.
GRADIENT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
HOROVOD = "horovod"
# What to do where a node lacks Horovod.
GET_HOROVOD = (
    "HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_MPI=1 PYTHON -m pip install horovod there, beside "
    "TensorFlow 2.18 or older; --python PATH of an interpreter that has it; --strategy all_reduce"
)
# What --input-only asks for; no choice of --strategy.
INPUT_ONLY = "input_only"
# Whose tasks listen, and call each other.
OVER_THE_NETWORK = (PARAMETER_SERVER_STRATEGY, ALL_REDUCE, HOROVOD)


@dataclass(frozen=True)
class Options:
    """What a person asked for. batch_size: images per GPU (per worker) and step.

    parameter_servers: how many, or None for one a node.  device: auto, cpu or gpu.
    aggregation: node, none, or auto for what is right (plan.py decides).
    workers: how many at most, one node filled before the next is taken; None for all that fit.
    stall_seconds: how long a run may go without a worker making a step or going on to another
    phase (stall.py has the phases that may take longer), or with a stopped task.
    xla: on, off or auto.
    The rest is as in `Job`; training: None for a measurement; what `binding` says of threads goes
    before *_threads.
    """

    model: str
    batch_size: int = 32
    gpus_per_node: int = 1
    workers: int | None = None
    strategy: str = PARAMETER_SERVER_STRATEGY
    synchronous: bool = True
    parameter_servers: int | None = None
    backup_workers: int = 0
    warmup_steps: int = 10
    measured_steps: int = 100
    device: str = "auto"
    first_port: int = DEFAULT_FIRST_PORT
    learning_rate: float = 0.01
    seed: int = 1
    stall_seconds: float = 60.0
    model_options: Mapping[str, float | int | bool | str] = field(default_factory=dict)
    image_shape: tuple[int, ...] = ()
    communication: str = "auto"
    precision: str = "fp32"
    xla: str = "auto"
    onednn: bool = True
    profile_steps: int = 0
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    training: Training | None = None
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    binding: Binding = field(default_factory=Binding)
    aggregation: str = AUTO
    gradient_dtype: str = "fp32"


@dataclass(frozen=True)
class PlannedTask:
    """One process of the run: on which node (an index), at which `host:port`, with what."""

    node: int
    place: Place
    address: str
    gpu_name: str = ""

    @property
    def name(self) -> str:
        """`worker 3`, as people say it."""
        return f"{self.place.role} {self.place.index}"


@dataclass(frozen=True)
class RunPlan:
    """One run: which process runs where, and what all of them have in common.

    gpus_per_node: of a full node; the last one has fewer where the workers come out uneven.
    """

    nodes: tuple[Node, ...]
    hellos: tuple[Hello, ...]
    gpus_per_node: int
    device: str
    job: Job
    tasks: tuple[PlannedTask, ...]
    machines: int
    stall_seconds: float
    binding: Binding = field(default_factory=Binding)

    @property
    def workers(self) -> tuple[PlannedTask, ...]:
        """The workers, in the order of their indices."""
        return tuple(task for task in self.tasks if task.place.role == WORKER)

    @property
    def servers(self) -> tuple[PlannedTask, ...]:
        """The parameter servers, in the order of their indices."""
        return tuple(task for task in self.tasks if task.place.role == PARAMETER_SERVER)

    @property
    def gpu_type(self) -> str:
        """The GPUs' (or the processors') model, or several with commas between."""
        if self.device == "gpu":
            found = {task.gpu_name for task in self.workers}
        else:
            found = {self.hellos[task.node].cpu_model or "cpu" for task in self.workers}
        return ", ".join(sorted(found))

    def places(self, node: int) -> tuple[Place, ...]:
        """What one node starts."""
        return tuple(task.place for task in self.tasks if task.node == node)
