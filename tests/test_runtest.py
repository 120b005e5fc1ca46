"""The command from end to end: real sshds, real agents, real TensorFlow, on two hosts and here."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from agents import wait_until_gone
from command import Running, runtest, tasks_here
from hosts import NamespaceHosts
from test_gpus import ONE, fake_nvidia_smi

LAST_LINE = re.compile(r"Nodes: (\d+); GPUs per node: (\d+); Images/sec: ([0-9.]+)\Z")
FIRST_RUN = ("-m", "deepmnist", "-n", 2, "-g", 2, "-b", 32, "-v", "--gradient-dtype", "bf16")
SECOND_RUN = ("-m", "resnet50", "-n", 2, "-g", 2, "-b", 4, "--steps", 3, "--warmup", 2)
ENDLESS = ("-m", "deepmnist", "-n", 2, "-g", 1, "-b", 32, "--steps", 1_000_000)

pytestmark = pytest.mark.tensorflow


@dataclass(frozen=True)
class Done:
    """Finished commands (the result is of the last), the logs that they wrote, and what the hosts
    sent during each, by its log: nothing for what had no hosts.
    """

    result: subprocess.CompletedProcess[str]
    logs: Path
    carried: dict[str, tuple[int, ...]]

    @property
    def lines(self) -> list[str]:
        return self.result.stdout.rstrip("\n").split("\n")

    def log(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.logs / f"{name}.csv")

    def run_folder(self, name: str) -> Path:
        return self.logs / "runs" / str(self.log(name)["run_id"].iloc[-1])


def over_ssh(hosts: NamespaceHosts) -> list[object]:
    """The options that reach the hosts; every interpreter there is this one."""
    return [
        *("-h", hosts.nodes_file(0, 1)),
        *("-r", "/tmp/x/"),
        *("--ssh-config", hosts.ssh_config),
        *("--python", sys.executable),
    ]


def nothing_left(hosts: NamespaceHosts, seconds: float) -> bool:
    """Whether no process and no open port is left on any host within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = [hosts.processes(i) for i in range(2)], [hosts.listening_ports(i) for i in range(2)]
        if left == ([[], []], [set(), set()]):
            return True
        time.sleep(0.05)
    print(left)
    return False


def sent_by(hosts: NamespaceHosts) -> tuple[int, ...]:
    """The bytes that each host has sent so far, which its link on this side has received."""
    counters = (f"/sys/class/net/{host.link}/statistics/rx_bytes" for host in hosts.hosts)
    return tuple(int(Path(path).read_text()) for path in counters)


@pytest.fixture(scope="module", params=["ssh", "local"])
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Done]:
    """Two runs, of ResNet-50 and of DeepMNIST, over ssh or on this machine."""
    folder = tmp_path_factory.mktemp(request.param)
    where: list[object] = ["-r", str(folder / "remote")]
    if request.param == "ssh":
        hosts = request.getfixturevalue("hosts")
        where = over_ssh(hosts)
    carried = {}
    for log, options in (("resnet50_b4", SECOND_RUN), ("deepmnist_b32", FIRST_RUN)):
        before = sent_by(hosts) if request.param == "ssh" else ()
        result = runtest(*options, *where, cwd=folder)
        assert result.returncode == 0, result.stderr
        after = sent_by(hosts) if request.param == "ssh" else ()
        carried[log] = tuple(now - then for then, now in zip(before, after, strict=True))
    yield Done(result, folder / "logs", carried)
    if request.param == "ssh":
        assert nothing_left(hosts, 2.0)
    else:
        assert tasks_here(str(folder)) == []


# `done` starts hosts for its ssh half, which is skipped with the reason where there can be none.


@pytest.mark.parametrize("model", ["deepmnist_b32", "resnet50_b4"])
def test_a_run_leaves_log_plot_raw_steps_and_the_log_of_every_task(done: Done, model: str) -> None:
    assert (done.logs / f"{model}.csv").exists()
    assert (done.logs / f"{model}.svg").read_text().lstrip().startswith("<?xml")
    names = {path.name for path in done.run_folder(model).iterdir()}
    tasks = {f"worker-{i}.log" for i in range(4)} | {f"ps-{i}.log" for i in range(2)}
    assert names == tasks | {"steps.csv", "run.json"}
    for task in tasks:
        assert "Started server" in (done.run_folder(model) / task).read_text()


def test_the_last_line_is_what_existing_scripts_look_for(done: Done) -> None:
    match = LAST_LINE.match(done.lines[-1])
    assert match is not None, done.lines
    assert match.group(1, 2) == ("2", "2")
    row = done.log("deepmnist_b32").iloc[-1]
    assert float(match[3]) == pytest.approx(row["images_per_sec"], abs=0.05)


@pytest.mark.parametrize(("model", "steps"), [("deepmnist_b32", 110), ("resnet50_b4", 5)])
def test_all_steps_of_all_workers_are_kept(done: Done, model: str, steps: int) -> None:
    table = pd.read_csv(done.run_folder(model) / "steps.csv")
    assert len(table) == 4 * steps
    for worker in range(4):
        mine = table[table["worker"] == worker]
        assert mine["step"].tolist() == list(range(steps))
        assert mine["global_step"].tolist() == list(range(1, steps + 1)), "one update a step"


@pytest.mark.parametrize(
    ("model", "steps", "of_4_bytes"), [("deepmnist_b32", 110, 2), ("resnet50_b4", 5, 4)]
)
def test_what_links_carry_and_servers_hold_is_told_and_true(
    done: Done, model: str, steps: int, of_4_bytes: int
) -> None:
    facts = json.loads((done.run_folder(model) / "run.json").read_text())
    whole = 4 * facts["finished"]["0"]["parameters"]
    assert [each["node"] for each in facts["servers"]] == [
        n["alias"] for n in facts["plan"]["nodes"]
    ]
    held = [each["bytes"] for each in facts["servers"]]
    assert sum(held) == whole
    carried = {(each["from"], each["to"]): each["bytes"] for each in facts["bytes_per_step"]}
    names = [node["alias"] for node in facts["plan"]["nodes"]]
    between = [carried[pair] for pair in (tuple(names), tuple(reversed(names)))]
    # The parameters of one server, and the gradients of the other, once for each node.
    own, other = held
    assert between == [own + other * of_4_bytes // 4, other + own * of_4_bytes // 4]
    assert done.log(model).iloc[-1]["aggregate"] == "node"
    for sent, each_step in zip(done.carried[model], between, strict=False):  # over ssh
        assert steps * each_step < sent < 1.15 * steps * each_step + 50e6


def test_what_holds_a_run_up_is_named_with_the_parts_of_its_steps(done: Done) -> None:
    facts = json.loads((done.run_folder("deepmnist_b32") / "run.json").read_text())
    assert sorted(facts["step_parts"]) == ["0", "1", "2", "3"]
    for parts in facts["step_parts"].values():
        known = sum(parts[name] for name in ("input", "pull", "compute", "push", "wait"))
        assert known == pytest.approx(parts["seconds"], rel=0.02)
        assert parts["cpu"] > 0
    assert facts["bottleneck"]["kind"] == done.log("deepmnist_b32").iloc[-1]["bottleneck"]
    assert f"held up by  {facts['bottleneck']['kind']}:" in done.result.stdout


@pytest.mark.parametrize(("model", "images"), [("deepmnist_b32", 128), ("resnet50_b4", 16)])
def test_every_figure_of_the_row_can_be_computed_again(done: Done, model: str, images: int) -> None:
    row = done.log(model).iloc[-1]
    table = pd.read_csv(done.run_folder(model) / "steps.csv")
    measured = table[table["phase"] == "measured"]
    times = measured.groupby("step")["seconds"].max()
    speeds = images / times
    assert row["gpus"] == 4
    assert row["images_per_sec"] == pytest.approx(images * len(times) / times.sum())
    assert row["mean_time"] == pytest.approx(times.mean())
    assert row["p50"] == pytest.approx(times.median())
    assert row["max"] == pytest.approx(times.max())
    assert row["speed_uncertainty"] == pytest.approx(speeds.std(ddof=0) / len(times) ** 0.5)
    jitter = 1.4826 * (speeds - speeds.median()).abs().median()
    assert row["speed_jitter"] == pytest.approx(jitter)


def test_the_record_of_a_run_says_what_was_run_where_and_with_what(done: Done) -> None:
    record = json.loads((done.run_folder("deepmnist_b32") / "run.json").read_text())
    assert record["status"] == "finished"
    assert "deepmnist" in record["argv"]
    assert len(record["plan"]["tasks"]) == 6
    assert record["hellos"][0]["versions"]["tensorflow"]
    assert record["hellos"][0]["cpus"] == sorted(os.sched_getaffinity(0))
    assert record["finished"]["0"]["parameters"] == 3_274_634
    assert 0 < record["seconds_reachability"] < 1, "and TensorFlow had the same ports after it"
    assert 0 < record["seconds_to_first_step"] < 120
    assert {phase["name"] for phase in record["startup"]} >= {"importing TensorFlow", "first step"}


def test_the_way_to_the_first_step_is_recorded_in_parts_and_printed(done: Done) -> None:
    record = json.loads((done.run_folder("deepmnist_b32") / "run.json").read_text())
    parts = record["startup_parts"]
    assert set(parts) == {
        *("start", "connect", "copy", "greet", "plan", "reach", "spawn"),
        *("import", "build", "initialise", "first step"),
    }
    assert all(seconds >= 0 for seconds in parts.values())
    assert min(parts[name] for name in ("start", "copy", "import", "first step")) > 0
    whole = record["seconds_command_to_first_step"]
    assert whole == pytest.approx(sum(parts.values()), abs=0.01)
    # The command had begun before that, and Python's own start is in it.
    assert record["seconds_to_first_step"] < whole < record["seconds_to_first_step"] + 30
    words = "from the command to the end of the first step"
    printed = re.search(rf"{words}: (\d+\.\d\d) s", done.result.stdout)
    assert printed is not None
    assert float(printed[1]) == pytest.approx(whole, abs=0.006)
    for name in parts:
        assert re.search(rf"^{name} +\d+\.\d\d  ", done.result.stdout, re.MULTILINE), name


def test_processes_on_one_machine_are_called_that(done: Done) -> None:
    row = done.log("deepmnist_b32").iloc[-1]
    assert row["machines"] == 1
    assert "processes on one machine" in row["warnings"]
    assert "all processes on 1 machine" in " ".join(done.result.stdout.split())


def test_the_plots_are_drawn_again_without_nodes_or_tensorflow(done: Done) -> None:
    before = {path.name: path.read_bytes() for path in done.logs.glob("*.svg")}
    for path in done.logs.glob("*.svg"):
        path.unlink()
    again = runtest("plot", done.logs, cwd=done.logs)
    assert again.returncode == 0, again.stderr
    assert {path.name: path.read_bytes() for path in done.logs.glob("*.svg")} == before
    assert set(before) == {"deepmnist_b32.svg", "resnet50_b4.svg"}


# In the middle of a run on two hosts; test_faults_during.py has what may go wrong then.


@pytest.fixture
def on_hosts(hosts: NamespaceHosts, tmp_path: Path) -> Iterator[Running]:
    """A run on two hosts that never ends by itself, and is measuring by now."""
    with Running(*ENDLESS, *over_ssh(hosts), cwd=tmp_path) as running:
        running.wait_for("measuring")
        yield running
    assert nothing_left(hosts, 40.0)


@pytest.mark.network
def test_no_option_environment_or_path_of_a_user_shows_on_a_node(
    on_hosts: Running, hosts: NamespaceHosts
) -> None:
    for process in hosts.processes(0):
        line = " ".join(process.argv)
        assert "deepmnist" not in line
        assert "/tmp/x" not in line


def test_kill_9_of_the_launcher_leaves_nothing_here_either(tmp_path: Path) -> None:
    remote = str(tmp_path / "remote")
    with Running(*ENDLESS, "-r", remote, cwd=tmp_path) as running:
        running.wait_for("measuring")
        left = tasks_here(remote)
        assert len(left) == 8, "two agents and their shells, two parameter servers, two workers"
        running.process.kill()
        assert wait_until_gone(left, 2.0) == []


# The other options.


def test_a_dry_run_prints_the_plan_and_starts_nothing(tmp_path: Path) -> None:
    done = runtest("-m", "resnet", "-n", 2, "-g", 2, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("ps 1", "worker 3", "127.0.0.1:2222", "local1", "nothing was started"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.network
def test_a_dry_run_over_ssh_shows_the_remote_command(hosts: NamespaceHosts, tmp_path: Path) -> None:
    done = runtest("-m", "resnet", "-n", 2, "--dry-run", "--json", *over_ssh(hosts), cwd=tmp_path)
    plan = json.loads(done.stdout)
    assert [task["place"]["role"] for task in plan["tasks"]] == ["ps", "ps", "worker", "worker"]
    assert plan["tasks"][0]["address"] == f"{hosts.hosts[0].address}:2222"
    assert plan["commands"][0].startswith(f"ssh -F {hosts.ssh_config} node0 ")
    assert nothing_left(hosts, 2.0)


@pytest.mark.parametrize(
    "options",
    [
        ["--async", "--num-ps", 2, "-g", 2],
        ["--backup-workers", 1, "-g", 2],
        ["--strategy", "single", "--onednn", "off"],
    ],
    ids=["async", "backup workers", "single"],
)
def test_every_way_of_training_gives_a_row_and_json(tmp_path: Path, options: list[object]) -> None:
    done = runtest(
        "-m", "deepmnist", *options, "--steps", 20, "--warmup", 2, "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["images_per_sec"] > 1
    assert row["sync"] == ("--async" not in options)
    assert row["backup_workers"] == (1 if "--backup-workers" in options else 0)
    assert row["onednn"] == ("off" if "--onednn" in options else "on")
    assert (
        row["parameter_servers"]
        == {"async": 2, "backup-workers": 1, "strategy": 0}[str(options[0])[2:]]
    )
    assert len(pd.read_csv(tmp_path / row["log"])) == 1


def test_the_last_line_is_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    done = runtest(
        *("-m", "deepmnist", "--strategy", "single", "--steps", 3, "--warmup", 1),
        cwd=tmp_path,
        environment={"COLUMNS": "30"},
    )
    assert LAST_LINE.match(done.stdout.splitlines()[-1])


def test_a_slow_worker_does_not_keep_those_with_a_backup_waiting(tmp_path: Path) -> None:
    remote = str(tmp_path / "remote")
    options = ("--backup-workers", 1, "-g", 4, "-b", 8, "--steps", 20, "--warmup", 5)
    with Running("-m", "deepmnist", *options, "-r", remote, cwd=tmp_path) as running:
        running.wait_for("all workers: importing")
        tasks = [pid for pid in tasks_here(remote) if "task" in command_line(pid)]
        os.kill(max(tasks), signal.SIGSTOP)
        time.sleep(10.0)  # by now the others wait for it at the barrier
        os.kill(max(tasks), signal.SIGCONT)
        assert running.end(120.0) == 0, running.said
    row = pd.read_csv(tmp_path / "logs" / "deepmnist_b8.csv").iloc[-1]
    assert (row["gpus"], row["backup_workers"]) == (4, 1)


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")


def test_nohup_is_respected(tmp_path: Path) -> None:
    with Running(*ENDLESS, cwd=tmp_path, ignoring=signal.SIGHUP) as running:
        running.wait_for("starting")
        running.send(signal.SIGHUP)
        time.sleep(1.0)
        assert running.process.poll() is None
        running.send(signal.SIGTERM)
        assert running.end(20.0) == 130


def test_a_gpu_that_tensorflow_does_not_see_is_an_error_and_not_a_slow_run(tmp_path: Path) -> None:
    """No GPU can be had here: a recorded nvidia-smi says there is one, and this TensorFlow has
    no CUDA, as on a node where the wrong build is installed.
    """
    fake_nvidia_smi(tmp_path, ONE)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = runtest("-m", "deepmnist", cwd=tmp_path, environment={"PATH": path})
    assert done.returncode == 1
    assert "worker 0 failed: RuntimeError: TensorFlow" in done.stderr
    assert "does not see GPU GPU-5c89852c" in done.stderr
    assert not list((tmp_path / "logs").glob("*.csv"))


def test_the_first_step_comes_soon(tmp_path: Path) -> None:
    """ResNet-50 on 1 + 1: within twice of what `single` needs, and 5 seconds."""
    seconds = {}
    for strategy in ("single", "parameter_server"):
        done = runtest(
            *("-m", "resnet50", "-b", 4, "--steps", 1, "--warmup", 1, "--strategy", strategy),
            *("--logs", tmp_path / strategy, "--json"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        record = Path(json.loads(done.stdout)["run_folder"]) / "run.json"
        seconds[strategy] = json.loads(record.read_text())["seconds_to_first_step"]
    assert seconds["parameter_server"] <= 2 * seconds["single"] + 5, seconds
