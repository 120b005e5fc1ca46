"""Real training for tests: in this process, or by a real agent with servers and workers.

The network is HEP-CNN with two small units on images of 16 × 16, which trains in milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from agents import AgentProcess

from perftest import protocol
from perftest.protocol import (
    Assignment,
    Cluster,
    Data,
    Evaluated,
    Exited,
    Failed,
    Finished,
    FromTask,
    Heartbeat,
    Job,
    Optimizer,
    Place,
    PortRequest,
    Progress,
    RocCurve,
    Saved,
    Start,
    Training,
)
from perftest.task import AgentLink

SIZE = 16
OPTIONS: dict[str, Any] = {"num_layers": 2, "filters": 8, "fc_units": 16, "dropout": 0.0}


def job(path: Path | str = "", output: Path | str = "", workers: int = 1, **changes: Any) -> Job:
    """A training with batches of 16 in all; with no `path`, a measurement with synthetic images."""
    return replace(
        Job(
            model="hep_cnn_64",
            strategy="single" if workers == 1 else "parameter_server",
            batch_size=16 // workers,
            warmup_steps=1,
            measured_steps=5,
            synchronous=True,
            aggregate=workers,
            precision="fp32",
            learning_rate=0.01,
            seed=1,
            cluster=Cluster((), ("127.0.0.1:1",) * workers),
            model_options=OPTIONS,
            image_shape=(SIZE, SIZE, 3),
            data=Data("hdf5", str(path)) if path else Data(),
            optimizer=Optimizer("adam"),
            training=training(output) if output else None,
        ),
        **changes,
    )


def training(output: Path | str, **changes: Any) -> Training:
    """Three epochs, a checkpoint after each."""
    asked = Training(
        epochs=3,
        display_interval=1,
        save_interval=1,
        validation_interval=0,
        evaluation_batch_size=32,
        output=str(output),
        summaries=False,
        restart=False,
        evaluate=False,
        checkpoint="",
    )
    return replace(asked, **changes)


def write_data(folder: Path, noise: float = 0.3, train: int = 100) -> Path:
    """HDF5 files of two classes: a bright spot in one of two places, under noise."""
    folder.mkdir(exist_ok=True)
    randoms = np.random.default_rng(7)
    for split, count in (("train", train), ("val", 60), ("test", 60)):
        labels = randoms.integers(0, 2, count)
        images = randoms.normal(0, noise, (count, 3, SIZE, SIZE)).astype(np.float32)
        for image, label in zip(images, labels, strict=True):
            image[:, 4 + 6 * label, 4:8] += 1
        with h5py.File(folder / f"{split}_1.h5", "w") as file:
            file["data"] = images
            file["label"] = labels.astype(np.int32)
            file["normweight"] = np.ones(count, np.float32)
            file["weight"] = np.where(labels == 1, 0.1, 2.0).astype(np.float32)
            file["psr"] = (labels ^ (randoms.random(count) < 0.2)).astype(np.int32)
    return folder


@dataclass
class Told:
    """What the workers of a training said; of worker 0 alone where nothing else is said."""

    messages: list[tuple[int, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def of(self, kind: type[Any], worker: int = 0) -> list[Any]:
        return [m for who, m in self.messages if who == worker and isinstance(m, kind)]

    def losses(self, workers: int = 1) -> dict[tuple[int, int], float]:
        """(epoch, step) -> the loss of that step over the global batch."""
        found: dict[tuple[int, int], list[float]] = {}
        for worker in range(workers):
            for message in self.of(Progress, worker):
                found.setdefault((message.epoch, message.step), []).append(message.loss)
        return {step: float(np.mean(values)) for step, values in found.items()}

    @property
    def validations(self) -> list[Evaluated]:
        return self.of(Evaluated)

    @property
    def saved(self) -> list[str]:
        return [message.checkpoint for message in self.of(Saved)]

    @property
    def curve(self) -> RocCurve:
        (found,) = self.of(RocCurve)
        return found

    @property
    def norm(self) -> float:
        return self.of(Finished)[0].parameter_norm


def run_here(asked: Job, tmp_path: Path) -> Told:
    """Run the single strategy in this process. Raises whatever it raises."""
    from perftest.strategies import single

    path = tmp_path / "messages"
    with path.open("wb") as file:
        link = AgentLink(BytesIO(), file.fileno())
        if asked.training is None:
            link._go.set()
        single.run(Assignment("r1", asked, Place("worker", 0, (), None)), link)
    return Told([(0, protocol.decode(line)) for line in path.read_bytes().splitlines()])


@contextmanager
def running(asked: Job, folder: Path, servers: int = 1) -> Iterator[Processes]:
    """The tasks of a job, started by a real agent."""
    workers = len(asked.cluster.worker)
    folder.mkdir(exist_ok=True)
    with AgentProcess(folder, task=None) as agent:
        ports = agent.greet(PortRequest(23000, servers + workers)).free_ports
        addresses = [f"127.0.0.1:{port}" for port in ports]
        placed = [Place("ps", i, (), None) for i in range(servers)]
        placed += [Place("worker", i, (), None) for i in range(workers)]
        cluster = Cluster(tuple(addresses[:servers]), tuple(addresses[servers:][:workers]))
        agent.send(Start("r1", replace(asked, cluster=cluster), tuple(placed)))
        yield Processes(agent, workers)


class Processes:
    """The tasks of one agent."""

    def __init__(self, agent: AgentProcess, workers: int) -> None:
        self.agent = agent
        self.told = Told()
        self._workers = workers

    def finish(self, seconds: float = 100) -> Told:
        """What was said until all workers had finished, or one had failed."""
        self._follow(lambda: self._finished() or bool(self.told.failures), seconds)
        return self.told

    def until_saved(self, count: int, seconds: float = 100) -> Told:
        """What was said until so many checkpoints were there."""
        self._follow(lambda: len(self.told.saved) >= count, seconds)
        return self.told

    def kill(self) -> None:
        """kill -9; the tasks go with their agent."""
        self.agent.process.kill()
        self.agent.process.wait()

    def _finished(self) -> bool:
        return all(self.told.of(Finished, worker) for worker in range(self._workers))

    def _follow(self, done: Any, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not done in time, but {self.told.messages[-5:]}"
            self.agent.send(Heartbeat())
            message = self.agent.next((FromTask, Exited, Heartbeat), 20)  # type: ignore[arg-type]
            if isinstance(message, Exited):
                self.told.failures.append("\n".join(message.log_tail))
            elif isinstance(message, FromTask):
                if isinstance(message.message, Failed):
                    self.told.failures.append(message.message.error)
                elif message.role == "worker":
                    self.told.messages.append((message.index, message.message))
