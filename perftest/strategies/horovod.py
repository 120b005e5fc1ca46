"""As all_reduce, but Horovod averages the gradients: over Gloo, without MPI and without mpirun.

The agents start the ranks as they start any worker. The process of rank 0 runs Horovod's own
rendezvous server, at its address in the plan, until all have met. After that the ranks talk to
each other at ports of Gloo's own choice.
"""

from __future__ import annotations

import os
import socket
import socketserver
import threading
import time
from typing import Any

import tensorflow as tf

from perftest import ranks
from perftest.inputs import Input
from perftest.measure import StepResult
from perftest.protocol import WORKER, Assignment, Job
from perftest.strategies.all_reduce import Lockstep, measure_in_step
from perftest.task import AgentLink
from perftest.worker import check_device

# How long Gloo waits for a rank; a run that does not get on is the launcher's to end.
_GLOO_SECONDS = "3600"
_POLL_SECONDS = 0.05
_CONNECT_SECONDS = 5.0


def run(assignment: Assignment, link: AgentLink) -> None:
    """Train on this process's one device, in step with all other ranks."""
    job, place = assignment.job, assignment.place
    if place.role != WORKER:
        raise ValueError("the horovod strategy has no parameter servers")
    if job.training is not None:
        raise ValueError("the horovod strategy measures, and does not train in epochs")
    check_device(job, place)
    hvd = _load()
    link.phase("meeting the other workers")
    _meet(hvd, job, place.index)

    def engine(model: Any, batches: Input, device: str) -> Horovod:
        return Horovod(job, model, batches, device, hvd)

    measure_in_step(assignment, link, engine)


def _load() -> Any:
    """horovod.tensorflow. Raises RuntimeError with what to install where there is none."""
    try:
        import horovod.tensorflow as hvd
    except (ImportError, tf.errors.OpError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeError(
            f"Horovod does not work with TensorFlow {tf.__version__} here: {said[0][:200]}. Try: "
            "HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_MPI=1 pip install --no-cache-dir horovod, "
            "beside TensorFlow 2.18 or older"
        ) from error
    if not hvd.gloo_built():
        raise RuntimeError(
            "this Horovod was built without Gloo. Try: HOROVOD_WITH_GLOO=1 pip install "
            "--no-cache-dir --force-reinstall --no-deps horovod"
        )
    return hvd


def _meet(hvd: Any, job: Job, rank: int) -> None:
    """Return when all ranks have found each other."""
    addresses = job.cluster.worker
    os.environ.update(ranks.variables(addresses, rank))
    os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", _GLOO_SECONDS)
    if interface := ranks.interface_of(ranks.split(addresses[rank])[0]):
        os.environ.setdefault("HOROVOD_GLOO_IFACE", interface)
    server = _serve(addresses[0]) if rank == 0 else None
    _wait_for(addresses[0])
    hvd.init()
    # Whoever has the result knows that nobody needs the server any more.
    hvd.allreduce(tf.zeros([]), op=hvd.Sum, name="meeting")
    if server is not None:
        server.shutdown()
        server.server_close()


def _serve(address: str) -> Any:
    """Horovod's rendezvous server, on a thread of its own. Raises RuntimeError for a taken port."""
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class Server(RendezvousHTTPServer):
        daemon_threads = True

        def server_bind(self) -> None:
            # HTTPServer would ask for this machine's full name here, which may take a while.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = "", self.server_address[1]

    try:
        server = Server(("", ranks.split(address)[1]), RendezvousHandler, 0)
    except OSError as error:
        raise RuntimeError(
            f"Horovod cannot listen at {address}: another program has taken the port since it was "
            "found free (run again, or --port-base with another first port)"
        ) from error
    threading.Thread(
        target=server.serve_forever, args=(_POLL_SECONDS,), name="rendezvous", daemon=True
    ).start()
    return server


def _wait_for(address: str) -> None:
    """Return when rank 0 listens: Horovod itself would give up after three tries."""
    while True:
        try:
            socket.create_connection(ranks.split(address), _CONNECT_SECONDS).close()
        except OSError:
            time.sleep(_POLL_SECONDS)
        else:
            return


class Horovod(Lockstep):
    """The training of one rank."""

    def __init__(self, job: Job, model: Any, batches: Input, device: str, hvd: Any) -> None:
        self._hvd = hvd
        super().__init__(job, model, batches, device)

    def step(self) -> StepResult:
        """Train on the next batch, with all others on theirs."""
        try:
            return super().step()
        except tf.errors.OpError as error:
            if "orovod" not in error.message and "gloo" not in error.message:
                raise
            # A lost rank: said in the way in which TensorFlow says it of a lost task.
            raise tf.errors.UnavailableError(None, None, error.message) from error

    def _replica(self, images: Any, labels: Any, weights: Any) -> Any:
        return self._train(images, labels, weights), self._computed_at

    def _combined(self, gradients: list[Any]) -> list[Any]:
        self._note_computed(gradients)
        # One operation each, so that the first travel while the last are computed; Horovod packs
        # those that are ready at the same time.
        return [
            self._hvd.allreduce(gradient, op=self._hvd.Average, name=f"gradient_{number}")
            for number, gradient in enumerate(gradients)
        ]
