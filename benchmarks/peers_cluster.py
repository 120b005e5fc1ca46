"""How fast do two workers train on this machine, beside tf_cnn_benchmarks in the same layout?

    python benchmarks/peers_cluster.py --tf-cnn-benchmarks DIR [--tf-cnn-python PATH]
        [--layout parameter_server|all_reduce|start] [--batch 8] [--steps 10] [--rounds 5]

`parameter_server`: a server and two synchronous workers, ours against theirs with
`--variable_update` parameter_server and distributed_replicated; `all_reduce`: two workers, ours
against their collective_all_reduce; `start`: a server and two workers, the seconds from the command
(theirs: from the start of its three processes) to the news of the first step that any worker has
made, ours in its parts too. Both train synchronously, so that the last worker's comes with it; a
worker of theirs tells it when its one step of warm-up is done. DIR and PATH, the rounds, ratios and
their intervals are as in peers.py. Batch is each worker's.

CPU seconds are those of all processes, their starts included: over the images of all steps, which
ours ends after while theirs are killed when each worker has told its speed; and for `start` as they
are, of three steps and an orderly end in ours and of what theirs have used when they are killed.
Exit status 1 where a bar of ours is not reached.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from peers import (
    OURS,
    TF_CNN_ENVIRONMENT,
    WARMUP,
    Asked,
    arguments,
    asked_for,
    compare,
    in_turns,
    runtest,
    tf_cnn_command,
    tf_cnn_speed,
)

WORKERS = 2
SERVER_OPTIONS = ("-g", WORKERS, "--num-ps", 1)
# Of each layout: what tf_cnn_benchmarks' `--variable_update` is to be, and our bars.
LAYOUTS: dict[str, dict[str, float]] = {
    "parameter_server": {"parameter_server": 1.2, "distributed_replicated": 1.2},
    "all_reduce": {"collective_all_reduce": 1.1},
    "start": {"parameter_server": 2.0},
}
Program = Callable[[Asked, str], tuple[float, float]]
Whose = Callable[[Iterable[object]], bool]


def speed_of_ours(layout: str) -> Program:
    """Images/sec of both workers, and CPU seconds."""

    def run(asked: Asked, folder: str) -> tuple[float, float]:
        where = ("-g", WORKERS) if layout == "all_reduce" else SERVER_OPTIONS
        row, used = runtest(asked, folder, "--strategy", layout, *where)
        return float(row["images_per_sec"]), used

    return run


def start_of_ours(asked: Asked, folder: str) -> tuple[float, float]:
    """Starts a second (so that more is better), and CPU seconds."""
    row, used = runtest(asked, folder, *SERVER_OPTIONS, "--warmup", 2, "--steps", 1)
    record = json.loads((Path(folder) / row["run_folder"] / "run.json").read_text())
    parts: Mapping[str, float] = record["startup_parts"]
    print(", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items()), flush=True)
    return 1 / sum(parts.values()), used


class Peer:
    """tf_cnn_benchmarks' processes of one run, each of which is killed at the end.

    used: the CPU seconds of all of them, children included, once they have ended.
    """

    def __init__(self, asked: Asked, folder: str, update: str, **more: object) -> None:
        servers = 0 if update == "collective_all_reduce" else 1
        hosts = [f"127.0.0.1:{port}" for port in free_ports(servers + WORKERS)]
        roles = [("ps", i) for i in range(servers)] + [("worker", i) for i in range(WORKERS)]
        cluster = {"worker_hosts": ",".join(hosts[servers:]), "variable_update": update}
        if servers:
            cluster["ps_hosts"] = ",".join(hosts[:servers])
            cluster["local_parameter_device"] = "cpu"
        else:
            cluster["all_reduce_spec"] = "collective"
        self.used = 0.0
        self._used_before = cpu_of_children()
        self.started = time.perf_counter()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.outputs = [Path(folder) / f"{role}{index}.out" for role, index in roles]
        for (role, index), path in zip(roles, self.outputs, strict=True):
            argv = tf_cnn_command(asked, job_name=role, task_index=index, **cluster, **more)
            environment = {**os.environ, **TF_CNN_ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
            with path.open("wb") as out:
                self.processes.append(
                    subprocess.Popen(
                        argv, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
                    )
                )
        self.workers = range(servers, len(roles))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.used = cpu_of_children() - self._used_before

    def said(self, number: int) -> str:
        """What one process has printed so far."""
        return self.outputs[number].read_text(errors="replace")

    def wait_for(self, pattern: str, whose: Whose) -> float:
        """Seconds from the start until all workers, or any of them, have printed this."""
        while not whose(re.search(pattern, self.said(number)) for number in self.workers):
            for number in self.workers:
                if self.processes[number].poll():
                    raise SystemExit(f"tf_cnn_benchmarks failed:\n{self.said(number)[-3000:]}")
            time.sleep(0.02)
        return time.perf_counter() - self.started


def speed_of_peer(update: str) -> Program:
    """Images/sec of both workers, and CPU seconds."""

    def run(asked: Asked, folder: str) -> tuple[float, float]:
        with Peer(asked, folder, update) as peer:
            peer.wait_for(r"total images/sec: [\d.]+\n", all)
        return float(np.mean([tf_cnn_speed(peer.said(i)) for i in peer.workers])), peer.used

    return run


def start_of_peer(asked: Asked, folder: str) -> tuple[float, float]:
    """Starts a second, and CPU seconds."""
    with Peer(asked, folder, "parameter_server", num_warmup_batches=1) as peer:
        seconds = peer.wait_for("Done warm up", any)
    return 1 / seconds, peer.used


def cpu_of_children() -> float:
    """CPU seconds of all processes of this one's, and of theirs, that have ended so far."""
    now = os.times()
    return now.children_user + now.children_system


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    """Measure and print."""
    parser = arguments(["resnet50", "inceptionv3", "alexnet"])
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="parameter_server")
    parser.set_defaults(batch=8)
    given = parser.parse_args()
    if given.tf_cnn_benchmarks is None:
        parser.error("--tf-cnn-benchmarks must say where the other program is")
    asked, layout = asked_for(given), given.layout
    bars = LAYOUTS[layout]
    programs: dict[str, Program] = {
        OURS: start_of_ours if layout == "start" else speed_of_ours(layout)
    }
    for update in bars:
        programs[update] = start_of_peer if layout == "start" else speed_of_peer(update)
    found = in_turns(programs, asked, given.rounds)
    print(f"{layout}: {asked.model}, batch {asked.batch}, {WORKERS} workers, {given.rounds} rounds")
    for place, name in enumerate(programs):
        print(f"{name:24} {described(found[:, place], layout, asked)}")
    if not compare(list(programs), found[..., 0], bars):
        raise SystemExit(1)


def described(found: np.ndarray, layout: str, asked: Asked) -> str:
    """Medians of what one program gave, and the range. found: (rounds, 2)."""
    speeds, used = found[:, 0], float(np.median(found[:, 1]))
    if layout == "start":
        one, unit, cpu = 1 / speeds, "s to the first step", f"{used:.1f} CPU seconds"
    else:
        images = WORKERS * asked.batch * (asked.steps + WARMUP)
        one, unit, cpu = speeds, "images/sec", f"{used / images:.3f} CPU seconds an image"
    return f"{np.median(one):8.2f} {unit} ({one.min():.2f} to {one.max():.2f}), {cpu}"


if __name__ == "__main__":
    main()
