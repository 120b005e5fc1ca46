"""What tasks are to do: the job that they share, and each one's place in it."""

from __future__ import annotations

from dataclasses import field

from perftest.protocol.training import Data, Optimizer, Training
from perftest.record import record

PARAMETER_SERVER = "ps"
WORKER = "worker"


@record(frozen=True)
class Cluster:
    """`host:port` of every parameter server and worker, in the order of their indices."""

    ps: tuple[str, ...]
    worker: tuple[str, ...]


@record(frozen=True)
class Job:
    """What all tasks of a run have in common.

    batch_size: images per worker and step.  aggregate: how many workers' gradients make an update
    (the number of workers less the backup workers).  steps are counted per worker.
    communication: auto, ring or nccl, how all_reduce adds up gradients.
    profile_steps: how many steps after the measured ones are traced.
    precision: fp32, tf32, fp16 or bf16.  xla: compile the pure step.  onednn: use its kernels.
    image_shape: height, width, channels, where they are not the model's own (empty: they are).
    adders: where gradients are added up on the node before they travel, for each worker the index
    of the one on its node that does it (its own where it is alone); empty: every worker's travel.
    server_adders: of each server, the one of its node; -1 where that has no worker.
    gradient_dtype: fp32, fp16 or bf16, in which gradients travel to parameter servers.
    training: None for a measurement.  *_threads: of TensorFlow's pools (0: what it chooses).
    """

    model: str
    strategy: str
    batch_size: int
    warmup_steps: int
    measured_steps: int
    synchronous: bool
    aggregate: int
    precision: str
    learning_rate: float
    seed: int
    cluster: Cluster
    model_options: dict[str, float | int | bool | str] = field(default_factory=dict)
    image_shape: tuple[int, ...] = ()
    communication: str = "auto"
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    training: Training | None = None
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    xla: bool = False
    onednn: bool = True
    profile_steps: int = 0
    adders: tuple[int, ...] = ()
    server_adders: tuple[int, ...] = ()
    gradient_dtype: str = "fp32"


@record(frozen=True)
class Place:
    """One task of a run: its role, index, and what of the node it may use.

    cpus: the processors it is pinned to (empty: all).  gpu: UUID of its GPU (None: it sees none).
    environment: variables that its process starts with, each as NAME=value.
    """

    role: str
    index: int
    cpus: tuple[int, ...]
    gpu: str | None
    environment: tuple[str, ...] = ()


@record(frozen=True)
class Assignment:
    """A task's first line of input: the job, its place in it, and the run's name."""

    run_id: str
    job: Job
    place: Place
