"""Which processors, threads and variables a worker gets: shares and profiles, and a real task's."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from command import Running, runtest, tasks_here
from hosts import NamespaceHosts
from results_examples import log_frame, row
from test_plan import HELLO, cpus, gpus, hello, nodes, plan

from launcher.binding import Binding, ranges
from launcher.binding_options import OPTIONS
from launcher.binding_profiles import SHIPPED, BindingError, find, parse, read
from launcher.errors import PlanError, UsageError
from launcher.results.compare import compare
from launcher.results.points import lines
from launcher.session import check_hello
from launcher.tasks import RunPlan
from perftest.topology import find_processors

# Two sockets, each one NUMA node, of two cores with two threads.
EIGHT = replace(
    HELLO,
    cpus=(0, 4, 1, 5, 2, 6, 3, 7),
    cores=(0, 0, 1, 1, 2, 2, 3, 3),
    sockets=(0, 0, 0, 0, 1, 1, 1, 1),
    domains=(0, 0, 0, 0, 1, 1, 1, 1),
)


def bound(cpu_bind: str, workers: int = 2) -> RunPlan:
    return plan([EIGHT], gpus_per_node=workers, binding=Binding(cpu_bind=cpu_bind))


# Shares.


@pytest.mark.parametrize(
    ("cpu_bind", "workers", "shares"),
    [
        ("auto", 2, [(0, 4, 1, 5), (2, 6, 3, 7)]),
        ("threads", 3, [(0, 4), (1, 5), (2, 6)]),
        ("threads", 8, [(0,), (4,), (1,), (5,), (2,), (6,), (3,), (7,)]),
        ("cores", 3, [(0, 4), (1, 5), (2, 6)]),
        ("cores", 8, [(0, 4), (1, 5), (2, 6), (3, 7)] * 2),
        ("sockets", 1, [(0, 4, 1, 5, 2, 6, 3, 7)]),
        ("sockets", 3, [(0, 4, 1, 5), (2, 6, 3, 7), (0, 4, 1, 5)]),
        ("ldoms", 2, [(0, 4, 1, 5), (2, 6, 3, 7)]),
        ("none", 2, [(), ()]),
        ("map_cpu:3,0x1", 3, [(3,), (1,), (3,)]),
        ("mask_cpu:0x11,f0", 2, [(0, 4), (4, 5, 6, 7)]),
    ],
)
def test_workers_are_bound_to_equal_shares_of_what_is_not_divided(
    cpu_bind: str, workers: int, shares: list[tuple[int, ...]]
) -> None:
    assert cpus(bound(cpu_bind, workers)) == shares


def test_nodes_of_one_machine_share_its_cores_out_among_all_their_workers() -> None:
    made = plan([EIGHT, EIGHT], gpus_per_node=2, binding=Binding(cpu_bind="cores"))
    assert cpus(made) == [(0, 4), (1, 5), (2, 6), (3, 7)]


def test_workers_with_gpus_are_bound_where_that_is_asked_for_alone() -> None:
    node = replace(EIGHT, gpus=gpus(2))
    assert cpus(plan([node], gpus_per_node=2)) == [(), ()]
    made = plan([node], gpus_per_node=2, binding=Binding(cpu_bind="sockets"))
    assert cpus(made) == [(0, 4, 1, 5), (2, 6, 3, 7)]


def test_processors_whose_cores_are_not_known_are_cores_of_their_own() -> None:
    made = plan([hello(cpus=(2, 3))], gpus_per_node=2, binding=Binding(cpu_bind="cores"))
    assert cpus(made) == [(2,), (3,)]


def test_a_processor_that_the_node_does_not_have_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(PlanError, match="h has no processor 9 for us, but 0-7"):
        bound("map_cpu:9")


def test_a_node_that_knows_the_places_of_some_processors_alone_is_refused() -> None:
    error = check_hello(nodes(1)[0], hello(cores=(0,)))
    assert "knows the places of some of its processors alone" in str(error)


def test_processors_are_written_as_ranges() -> None:
    assert ranges((8, 0, 1, 2, 3)) == "0-3,8"


def test_the_kernel_is_asked_for_cores_sockets_and_numa_nodes(tmp_path: Path) -> None:
    places = {0: (0, 0), 1: (1, 0), 2: (0, 0), 3: (1, 0)}
    for cpu, (socket, core) in places.items():
        folder = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{socket}\n")
        (folder / "core_id").write_text(f"{core}\n")
    for domain, listed in enumerate(("0,2\n", "1,3-4\n")):
        (tmp_path / "node" / f"node{domain}").mkdir(parents=True)
        (tmp_path / "node" / f"node{domain}" / "cpulist").write_text(listed)
    found = find_processors({0, 1, 2, 3}, tmp_path)
    assert found.cpus == (0, 2, 1, 3)
    assert found.cores == (0, 0, 1, 1)
    assert found.sockets == found.domains == (0, 0, 1, 1)


# Threads and variables.


def test_each_worker_has_its_own_numbers_in_its_variables() -> None:
    profile = Binding(
        cpu_bind="cores",
        intra_op_threads="cores",
        inter_op_threads=2,
        environment={"OMP_NUM_THREADS": "{cores}", "A": "{cpus} of {1}, {threads}"},
    )
    made = plan([EIGHT], gpus_per_node=2, binding=profile)
    assert (made.job.intra_op_threads, made.job.inter_op_threads) == (2, 2)
    variables = ("OMP_NUM_THREADS=2", "A=4 of {1}, 2")
    assert [task.place.environment for task in made.workers] == [variables] * 2
    assert [task.place.environment for task in made.servers] == [()]


def test_a_worker_has_no_more_threads_than_it_is_bound_to_processors() -> None:
    asked = Binding(intra_op_threads=33)
    assert plan([EIGHT], gpus_per_node=2, binding=asked).job.intra_op_threads == 4
    asked = replace(asked, cpu_bind="none")
    assert plan([EIGHT], gpus_per_node=2, binding=asked).job.intra_op_threads == 33


def test_threads_of_a_profile_go_before_those_of_a_configuration() -> None:
    made = plan([EIGHT], intra_op_threads=3, binding=Binding(intra_op_threads=5))
    assert made.job.intra_op_threads == 5


# Profiles.


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.ini"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(read(SHIPPED)))
def test_every_profile_that_is_shipped_makes_a_plan_and_stands_in_the_help(name: str) -> None:
    made = plan([EIGHT], gpus_per_node=2, binding=find(name))
    assert made.binding.name == name
    assert read(SHIPPED)[name]["about"]
    (help_text,) = [o.help for o in options() if o.name == "binding"]
    assert name in help_text.split(":")[1].replace(",", "").split()


def options() -> list[object]:
    def command() -> None: ...

    for decorate in OPTIONS:
        command = decorate(command)
    return command.__click_params__


def test_the_profile_for_knl_has_the_threads_of_the_older_program() -> None:
    assert (find("knl").intra_op_threads, find("knl").inter_op_threads) == (33, 2)
    assert find("knl").environment["KMP_BLOCKTIME"] == "0"
    assert find("haswell").intra_op_threads == 16


def test_a_profile_of_the_user_s_may_begin_with_ours_and_replaces_one_of_its_name(
    tmp_path: Path,
) -> None:
    mine = write(
        tmp_path,
        "[knl]\nlike = knl\nintra-op-threads = 60\nKMP_SETTINGS =\n"
        "[mine]\nlike = knl\nMY_SIZE = 1=1\n",
    )
    found = find("mine", mine)
    assert (found.name, found.cpu_bind, found.intra_op_threads) == ("mine", "cores", 60)
    assert found.environment["MY_SIZE"] == "1=1"
    assert "KMP_SETTINGS" in find("knl").environment
    assert "KMP_SETTINGS" not in found.environment
    assert find("intel", mine) == find("intel")


MISTAKES = {
    "[a]\nlike = a\n": "like 'a' is no profile",
    "[a]\nlike = b\n[b]\nlike = a\n": "like 'a' leads back to itself",
    "[a]\ncpu-bnd = cores\n": r"'cpu-bnd' is neither a key nor a variable in capitals. Try: cpu-b",
    "[a]\ncpu-bind = core\n": r"\[a\]: cpu-bind 'core' is none of auto, .* Try: cores",
    "[a]\ncpu-bind = mask_cpu:0\n": "cpu-bind mask_cpu: '0' is not a mask of processors",
    "[a]\ncpu-bind = map_cpu:a\n": "cpu-bind map_cpu: 'a' is not the number of a processor",
    "[a]\nintra-op-threads = many\n": "intra-op-threads 'many' is no number of threads",
    "[a]\nPATH = /x\n": "PATH is set by runtest itself",
    "[a]\nOMP_PLACES = 1\n  2\n": "the value of OMP_PLACES does not print",
    "[a]\n[a]\n": "line 2: a profile that is there twice",
    "[a]\nX = 1\nX = 2\n": "line 3: a key that is there twice",
    "X = 1\n": r"line 1: a line before the first \[profile\]",
    "[a]\nX\n": r"line 2: neither \[profile\] nor key = value",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_file_of_profiles_is_told_with_its_place(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=MISTAKES[text]) as caught:
        find("a", write(tmp_path, text))
    assert "mine.ini" in str(caught.value)


def test_a_file_of_profiles_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BindingError, match="No such file"):
        read(tmp_path / "none.ini")
    (tmp_path / "large.ini").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(BindingError, match="is larger than any file of bindings"):
        read(tmp_path / "large.ini")
    (tmp_path / "latin.ini").write_bytes(b"[a]\nabout = \xe4\n")
    with pytest.raises(BindingError, match="is no UTF-8 text"):
        read(tmp_path / "latin.ini")
    assert parse("", "empty") == {}


# What becomes of it.


def test_rows_of_different_bindings_are_different_lines_and_can_be_compared() -> None:
    plain, cores = log_frame([row()]), log_frame([row(binding="cores", images_per_sec=640.0)])
    both = pd.concat([plain, cores], ignore_index=True)
    assert {line.label for line in lines(both)} == {"parameter server", "parameter server, cores"}
    (found,) = compare(plain, cores)
    assert found.ratio.value == 2.0
    assert len(compare(both, cores)) == 2, "a side that has several is not one configuration"


# The command.


def test_a_name_or_word_that_is_none_is_told_with_the_nearest(tmp_path: Path) -> None:
    for words, says in (
        (("--binding", "kln"), "'kln' is none of amd, arm, gpu, haswell, intel, knl, unbound"),
        (("--cpu-bind", "core"), "Try: cores"),
        (("--binding-file", "x"), "--binding-file has no meaning without --binding"),
    ):
        done = runtest("-m", "deepmnist", *words, cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert says in done.stderr


def test_a_dry_run_shows_binding_threads_and_variables(tmp_path: Path) -> None:
    words = ("--binding", "knl", "--cpu-bind", "threads", "--dry-run")
    said = runtest("-m", "deepmnist", *words, cwd=tmp_path).stdout
    assert "binding: knl, --cpu-bind threads" in said
    assert " KMP_AFFINITY=granularity=fine,compact,1,0 KMP_BLOCKTIME=0 " in said
    swept = runtest("scale", "-m", "deepmnist", "-x", 2, *words, cwd=tmp_path).stdout
    assert "binding: knl, --cpu-bind threads" in swept


def of_process(pid: int) -> tuple[dict[str, str], str]:
    """A process's environment, as it was started with, and the processors that it may use."""
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    status = Path(f"/proc/{pid}/status").read_text()
    (allowed,) = [s.split()[1] for s in status.splitlines() if s.startswith("Cpus_allowed_list")]
    return dict(word.split("=", 1) for word in words if "=" in word), allowed


@pytest.mark.tensorflow
def test_a_worker_over_ssh_is_bound_and_has_the_variables_of_its_profile(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    last = max(os.sched_getaffinity(0))
    mine = write(tmp_path, "[mine]\nlike = knl\nKMP_BLOCKTIME = 17\nMY_THREADS = {threads}\n")
    words = ("--binding", "mine", "--binding-file", mine, "--cpu-bind", f"map_cpu:{last}")
    where = ("-h", hosts.nodes_file(0), "-r", tmp_path / "remote", "--python", sys.executable)
    run = ("-m", "deepmnist", "-b", 4, "--steps", 1_000_000, "--ssh-config", hosts.ssh_config)
    with Running(*run, *words, *where, cwd=tmp_path) as running:
        running.wait_for("measuring")
        seen = [of_process(pid) for pid in tasks_here(str(tmp_path))]
        running.process.terminate()
        assert running.end(30) == 130
    (worker,) = [(env, allowed) for env, allowed in seen if env.get("KMP_BLOCKTIME") == "17"]
    environment, allowed = worker
    assert allowed == str(last)
    assert environment["MY_THREADS"] == environment["TF_NUM_INTRAOP_THREADS"] == "1"
    assert environment["TF_NUM_INTEROP_THREADS"] == "2"
    assert environment["KMP_AFFINITY"] == "granularity=fine,compact,1,0"
    (record,) = tmp_path.glob("logs/runs/*/run.json")
    recorded = json.loads(record.read_text())["plan"]
    assert recorded["binding"]["name"] == "mine"
    assert recorded["binding"]["cpu_bind"] == f"map_cpu:{last}"
    (place,) = [task["place"] for task in recorded["tasks"] if task["place"]["role"] == "worker"]
    assert place["cpus"] == [last]
    assert "KMP_BLOCKTIME=17" in place["environment"]
