"""What it is worth that a node's workers add up their gradients before these travel.

AlexNet on two nodes with two workers each and a parameter server on each, synchronous. The nodes
are network namespaces of this machine, each with an sshd of its own, behind links of 1 Gbit/s each
way (tbf). In every round one run with `--aggregate node` and one with `none`, the first of them in
turn. Processors are few here, so that computing and copying count as well: each run's CPU seconds,
and the parts of a step of the worker that the others wait for, stand beside its speed. What the
links carry is counted by the kernel and compared with what run.json says.

Needs root. With `--logs DIR` the runs stay there, and later calls add rounds to those of earlier
ones. The exit status is 1 where the median ratio is below 1.5.

    .venv/bin/python benchmarks/aggregate.py [--rounds 5] [--batch 8] [--mbit 1000] [--logs DIR]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from command import runtest
from hosts import NamespaceHosts, why_not

BAR = 1.5
MODES = ("node", "none")
PARTS = ("input", "pull", "compute", "push", "wait")
COUNTS = "bytes_on_links.jsonl"


@dataclass(frozen=True)
class Run:
    """One run. cpu: processor seconds of all its tasks for each image.  parts: seconds of a step,
    of its pacemaker.  told, counted: bytes between the nodes in a step, both ways together.
    """

    mode: str
    images_per_sec: float
    cpu: float
    step: float
    parts: dict[str, float]
    kind: str
    told: float
    counted: float


def sent(hosts: NamespaceHosts) -> int:
    """The bytes that both hosts have sent so far."""
    paths = (f"/sys/class/net/{host.link}/statistics/rx_bytes" for host in hosts.hosts)
    return sum(int(Path(path).read_text()) for path in paths)


def make_run(hosts: NamespaceHosts, mode: str, asked: argparse.Namespace, logs: Path) -> None:
    """One run, kept in the logs."""
    before = sent(hosts)
    done = runtest(
        *("-m", "alexnet", "-b", asked.batch, "-n", 2, "-g", 2, "--aggregate", mode),
        *("--steps", asked.steps, "--warmup", asked.warmup, "--logs", logs, "--json"),
        *("-h", hosts.nodes_file(), "--ssh-config", hosts.ssh_config, "--python", sys.executable),
        cwd=logs,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    folder = json.loads(done.stdout.splitlines()[-1])["run_folder"]
    with (logs / COUNTS).open("a") as file:
        count = {"run": folder, "mode": mode, "bytes": sent(hosts) - before}
        file.write(json.dumps(count) + "\n")
    print(f"{mode:5} {read_run(count).images_per_sec:6.2f} images/sec", flush=True)


def read_run(count: dict[str, Any]) -> Run:
    """A run of the logs."""
    facts = json.loads((Path(count["run"]) / "run.json").read_text())
    workers = facts["step_parts"].values()
    pace = min(workers, key=lambda each: each["wait"])
    job = facts["plan"]["job"]
    busy = sum(each["processors_used"] or 0.0 for each in facts["servers"])
    cpu = sum(each["cpu"] for each in workers) + busy * pace["seconds"]
    told = sum(e["bytes"] for e in facts["bytes_per_step"] if e["from"] != e["to"])
    return Run(
        mode=count["mode"],
        images_per_sec=facts["summary"]["images_per_sec"],
        cpu=cpu / (job["batch_size"] * len(workers)),
        step=pace["seconds"],
        parts={part: pace[part] for part in PARTS},
        kind=facts["bottleneck"]["kind"],
        told=told,
        counted=count["bytes"] / (job["warmup_steps"] + job["measured_steps"]),
    )


def print_runs(runs: Sequence[Run]) -> None:
    """The median of each kind of run."""
    print("\n               images/sec  CPU s/image  step s " + " ".join(f"{p:>7}" for p in PARTS))
    for mode in MODES:
        own = [run for run in runs if run.mode == mode]
        parts = " ".join(f"{median(run.parts[part] for run in own):7.2f}" for part in PARTS)
        print(
            f"aggregate {mode:4} {median(run.images_per_sec for run in own):10.2f} "
            f"{median(run.cpu for run in own):12.3f} {median(run.step for run in own):7.2f} {parts}"
        )
        kinds = sorted({run.kind for run in own})
        print(
            f"{'':15} held up by {', '.join(kinds)}; {own[0].told / 1e6:.0f} MB between the nodes "
            f"in a step, both ways together; counted, with all of the start: "
            f"{median(run.counted for run in own) / 1e6:.0f}"
        )


def verdict(runs: Sequence[Run]) -> bool:
    """The ratio of the two runs of a round: median, and the 95 % interval of its mean logarithm."""
    by_mode = [[run.images_per_sec for run in runs if run.mode == mode] for mode in MODES]
    ratios = [one / other for one, other in zip(*by_mode, strict=False)]
    interval = "no interval of one round"
    if len(ratios) > 1:
        logs = [math.log(ratio) for ratio in ratios]
        reach = stats.t.ppf(0.975, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
        low, high = (math.exp(mean(logs) + sign * reach) for sign in (-1, 1))
        interval = f"95 %: {low:.2f} to {high:.2f}"
    good = median(ratios) >= BAR
    print(
        f"\n{len(ratios)} rounds; images/sec, node ÷ none: {median(ratios):.2f} ({interval}); "
        f"at least {BAR}: {'met' if good else 'NOT MET'}"
    )
    return good


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="images of a worker and step")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--mbit", type=int, default=1000, help="of each link, each way")
    parser.add_argument("--logs", type=Path, help="where runs are kept")
    asked = parser.parse_args()
    if reason := why_not():
        print(f"aggregate: {reason}", file=sys.stderr)
        return 2
    logs = asked.logs or Path(tempfile.mkdtemp(prefix="aggregate-"))
    logs.mkdir(parents=True, exist_ok=True)
    with NamespaceHosts(2) as hosts, hosts.shaped(asked.mbit):
        for number in range(asked.rounds):
            for mode in MODES if number % 2 == 0 else reversed(MODES):
                make_run(hosts, mode, asked, logs.absolute())
    counts = [json.loads(line) for line in (logs / COUNTS).read_text().splitlines()]
    runs = [read_run(count) for count in counts]
    print_runs(runs)
    return 0 if verdict(runs) else 1


if __name__ == "__main__":
    sys.exit(main())
