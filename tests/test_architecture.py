"""Who may import whom: the table of the design, held against the imports themselves.

Each rule is a function from sources to complaints. It must have none about the sources as they
are, and exactly one when a line that breaks it is planted.
"""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from imports import ROOT, Import, Sources, all_imports, imports_of, module_of, parse, reachable
from imports import read_sources as read

from launcher.payload import make_payload
from perftest import protocol
from perftest.protocol import Greet, Hello, Stop

SOURCES = read()
STANDARD = frozenset(sys.stdlib_module_names)

OPERATOR = {"click", "fabric", "filelock", "matplotlib", "numpy", "pandas", "paramiko", "rich"}
ALLOWED: dict[str, set[str]] = {
    "launcher": {"launcher", "scipy", *OPERATOR},
    "perftest": {"perftest", "models", "tensorflow", "keras", "numpy", "h5py", "horovod"},
    "models": {"models", "tensorflow", "keras", "numpy"},
}

TALKS_TO_THE_WORLD = {
    *("asyncio", "builtins", "ctypes", "fcntl", "ftplib", "glob", "http", "importlib", "io"),
    *("logging", "multiprocessing", "os", "pathlib", "posix", "pty", "random", "requests"),
    *("secrets", "select", "selectors", "shutil", "signal", "smtplib", "socket", "ssl"),
    *("subprocess", "sys", "tempfile", "termios", "threading", "time", "urllib", "webbrowser"),
}
PURE = (
    "launcher/binding.py",
    "launcher/ceiling.py",
    "launcher/check_verdict.py",
    "launcher/checked.py",
    "launcher/findings.py",
    "launcher/findings_machine.py",
    "launcher/findings_network.py",
    "launcher/pairs.py",
    "launcher/plan.py",
    "launcher/results/estimate.py",
    "launcher/results/summary.py",
    "launcher/results/timeline.py",
    "launcher/results/warnings.py",
)
OPENS = {"open", "print", "input", "exec", "eval", "read_csv", "read_text", "write_text", "to_csv"}

Rule = Callable[[Sources], Iterator[str]]


# --- the rules -------------------------------------------------------------------------------


def rooms_are_apart(sources: Sources) -> Iterator[str]:
    """launcher, perftest and models import what the table allows them, and nothing else."""
    for each in all_imports(sources):
        package = each.file.partition("/")[0]
        if each.top in STANDARD or each.top in ALLOWED[package]:
            continue
        if package == "launcher" and each.module == "perftest.protocol":
            continue
        yield str(each)


def fabric_is_at_home_in_one_file(sources: Sources) -> Iterator[str]:
    """transports/ssh.py alone imports fabric, and its folder alone paramiko."""
    for each in all_imports(sources):
        if each.top == "fabric" and each.file != "launcher/transports/ssh.py":
            yield str(each)
        if each.top == "paramiko" and not each.file.startswith("launcher/transports/"):
            yield str(each)


def agent_needs_the_standard_library_alone(sources: Sources) -> Iterator[str]:
    """So do the protocol and everything in perftest/ that the two import."""
    starts = ("perftest/agent.py", "perftest/protocol/__init__.py")
    files = {file for start in starts for file in reachable(start, sources)}
    for file in sorted(file for file in files if file.startswith("perftest/")):
        for each in imports_of(file, sources):
            if each.top not in STANDARD and each.top != "perftest":
                yield str(each)


def planning_and_arithmetic_open_nothing(sources: Sources) -> Iterator[str]:
    """They import nothing that reaches out of the process, and call nothing that opens."""
    for file in PURE:
        for each in imports_of(file, sources):
            if each.top in TALKS_TO_THE_WORLD:
                yield str(each)
        yield from _calls(file, parse(sources[file]), OPENS)


def nodes_are_parsed_from_text_alone(sources: Sources) -> Iterator[str]:
    """read_nodes is the only one in nodes.py that knows of files."""
    file = "launcher/nodes.py"
    for each in imports_of(file, sources):
        if each.top in TALKS_TO_THE_WORLD - {"pathlib"}:
            yield str(each)
    for node in parse(sources[file]).body:
        if isinstance(node, ast.FunctionDef) and node.name != "read_nodes":
            yield from _calls(file, node, {*OPENS, "Path"})


def cli_alone_reads_argv_and_decides_the_exit_code(sources: Sources) -> Iterator[str]:
    """In launcher/, `sys.argv` and `sys.exit` are in cli.py only."""
    for file, text in sources.items():
        if file.startswith("launcher/") and file != "launcher/cli.py":
            for number, line in enumerate(text.splitlines(), start=1):
                if re.search(r"\bsys\.(argv|exit)\b|\bos\._exit\b|\bSystemExit\b", line):
                    yield f"{file}:{number} {line.strip()}"


def foreign_packages_are_declared(sources: Sources) -> Iterator[str]:
    """setup.cfg lists what launcher imports; numpy and the extras serve the nodes."""
    launcher, cpu, gpu = declared("install_requires"), declared("cpu"), declared("gpu")
    on_nodes = (launcher | cpu) & (launcher | gpu) | declared("horovod")
    for each in _foreign(sources):
        if each.top not in (launcher if each.file.startswith("launcher/") else on_nodes):
            yield f"{each}, which setup.cfg does not list"


RULES: tuple[Rule, ...] = (
    rooms_are_apart,
    fabric_is_at_home_in_one_file,
    agent_needs_the_standard_library_alone,
    planning_and_arithmetic_open_nothing,
    nodes_are_parsed_from_text_alone,
    cli_alone_reads_argv_and_decides_the_exit_code,
    foreign_packages_are_declared,
)


def _calls(file: str, tree: ast.AST, names: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in names:
                yield f"{file}:{node.lineno} calls {name}"


def _foreign(sources: Sources) -> Iterator[Import]:
    ours = {file.partition("/")[0] for file in sources}
    return (i for i in all_imports(sources) if i.top not in STANDARD and i.top not in ours)


def declared(what: str) -> set[str]:
    """The packages that setup.cfg lists there, by the names under which they are imported."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    section = "options" if what == "install_requires" else "options.extras_require"
    names = (re.match(r"[\w-]+", line) for line in config[section][what].split("\n") if line)
    return {found[0].replace("tensorflow-cpu", "tensorflow") for found in names if found}


# --- the rules hold, and can fail ------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule) -> None:
    assert not list(rule(SOURCES))


PLANTED = [
    (rooms_are_apart, "launcher/report.py", "import tensorflow as tf"),
    (rooms_are_apart, "launcher/report.py", "def f():\n    from keras import layers"),
    (rooms_are_apart, "launcher/report.py", "from tensorflow.python import tf2"),
    (rooms_are_apart, "launcher/report.py", "import models"),
    (rooms_are_apart, "launcher/report.py", "from models.resnet import MODELS"),
    (rooms_are_apart, "launcher/report.py", "import perftest"),
    (rooms_are_apart, "launcher/report.py", "from perftest import measure"),
    (rooms_are_apart, "launcher/report.py", "from perftest.gpus import find_gpus"),
    (rooms_are_apart, "launcher/report.py", "import requests"),
    (rooms_are_apart, "launcher/report.py", "importlib.import_module('tensorflow')"),
    (rooms_are_apart, "launcher/report.py", "importlib.import_module(name)"),
    (rooms_are_apart, "launcher/report.py", "__import__('keras')"),
    (rooms_are_apart, "launcher/results/log.py", "from ...perftest import agent"),
    (rooms_are_apart, "perftest/training.py", "import launcher"),
    (rooms_are_apart, "perftest/training.py", "if TYPE_CHECKING:\n    from launcher import plan"),
    (rooms_are_apart, "perftest/training.py", "import pandas"),
    (rooms_are_apart, "models/resnet.py", "import perftest.protocol"),
    (rooms_are_apart, "models/resnet.py", "from launcher.nodes import Node"),
    (rooms_are_apart, "models/resnet.py", "import scipy.stats"),
    (fabric_is_at_home_in_one_file, "launcher/session.py", "def f():\n    import fabric"),
    (fabric_is_at_home_in_one_file, "launcher/transports/ssh_keys.py", "import fabric.config"),
    (fabric_is_at_home_in_one_file, "launcher/cli.py", "from paramiko import SSHClient"),
    (agent_needs_the_standard_library_alone, "perftest/agent.py", "import numpy"),
    (agent_needs_the_standard_library_alone, "perftest/streams.py", "def f():\n    import h5py"),
    (agent_needs_the_standard_library_alone, "perftest/__init__.py", "import tensorflow"),
    (agent_needs_the_standard_library_alone, "perftest/protocol/__init__.py", "import models"),
    (planning_and_arithmetic_open_nothing, "launcher/plan.py", "import socket"),
    (planning_and_arithmetic_open_nothing, "launcher/plan.py", "from pathlib import Path"),
    (planning_and_arithmetic_open_nothing, "launcher/plan.py", "open('x')"),
    (planning_and_arithmetic_open_nothing, "launcher/results/summary.py", "pd.read_csv('x')"),
    (planning_and_arithmetic_open_nothing, "launcher/results/estimate.py", "import os.path"),
    (nodes_are_parsed_from_text_alone, "launcher/nodes.py", "import subprocess"),
    (nodes_are_parsed_from_text_alone, "launcher/nodes.py", "def g(name):\n    Path(name)"),
    (cli_alone_reads_argv_and_decides_the_exit_code, "launcher/run.py", "sys.exit(1)"),
    (cli_alone_reads_argv_and_decides_the_exit_code, "launcher/run.py", "raise SystemExit"),
    (foreign_packages_are_declared, "launcher/run.py", "import invoke"),
    (foreign_packages_are_declared, "perftest/training.py", "import tensorflow_datasets"),
]


@pytest.mark.parametrize(
    ("rule", "file", "line"),
    PLANTED,
    ids=[f"{file}-{line.splitlines()[-1].strip()}" for _, file, line in PLANTED],
)
def test_rule_finds_what_breaks_it(rule: Rule, file: str, line: str) -> None:
    complaints = list(rule({**SOURCES, file: f"{SOURCES[file]}\n{line}\n"}))
    assert len(complaints) == 1
    assert complaints[0].startswith(f"{file}:")


def test_module_imported_through_another_counts_for_the_agent() -> None:
    planted = {
        **SOURCES,
        "perftest/streams.py": SOURCES["perftest/streams.py"] + "\nfrom perftest import training\n",
    }
    files = {line.partition(":")[0] for line in agent_needs_the_standard_library_alone(planted)}
    assert "perftest/training.py" in files


def test_launcher_uses_every_package_that_it_pulls_in() -> None:
    imported = {each.top for each in _foreign(SOURCES) if each.file.startswith("launcher/")}
    assert declared("install_requires") == imported


# --- and when the program runs ---------------------------------------------------------------

BLOCK = """
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError("not to be imported here: " + name)
sys.meta_path.insert(0, Blocked())
for name in {modules}:
    importlib.import_module(name)
print(*sorted(name for name in sys.modules if name.partition(".")[0] in ("perftest", "models")))
"""
NODE_SIDE = {"tensorflow", "keras", "h5py"}
PROTOCOL = {"perftest", "perftest.record", "perftest.records"} | {
    module_of(file) for file in SOURCES if file.startswith("perftest/protocol/")
}


def import_without(blocked: set[str], modules: list[str]) -> subprocess.CompletedProcess[str]:
    code = BLOCK.format(blocked=blocked, modules=modules)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_command_starts_without_tensorflow_and_without_fabric() -> None:
    done = import_without({*NODE_SIDE, "fabric", "paramiko"}, ["launcher.cli"])
    assert done.returncode == 0, done.stderr
    assert PROTOCOL.issuperset(done.stdout.split())


def test_whole_launcher_does_without_tensorflow() -> None:
    modules = [module_of(file) for file in SOURCES if file.startswith("launcher/")]
    done = import_without(NODE_SIDE, modules)
    assert done.returncode == 0, done.stderr
    assert PROTOCOL.issuperset(done.stdout.split())


def test_models_are_listed_without_tensorflow() -> None:
    code = "import sys, models; print(models.names()); assert 'keras' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-s", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "deepmnist" in done.stdout


def test_import_that_is_blocked_is_noticed() -> None:
    done = import_without({"json"}, ["launcher.cli"])
    assert done.returncode != 0
    assert "not to be imported here: json" in done.stderr


def test_agent_greets_on_a_python_with_nothing_installed(tmp_path: Path) -> None:
    subprocess.run(["tar", "-xz"], input=make_payload().data, cwd=tmp_path, check=True)
    said = protocol.encode(Greet(protocol.VERSION, "s", ())) + protocol.encode(Stop())
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-s", "-m", "perftest.agent"],
        input=said,
        capture_output=True,
        cwd=tmp_path,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    messages = [protocol.decode(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    hello = messages[0]
    assert isinstance(hello, Hello)
    assert hello.versions.tensorflow == ""
