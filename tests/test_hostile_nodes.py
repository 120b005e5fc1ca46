"""Nodes that lie and arguments that are meant to do harm, with the real command and real sshds."""

from __future__ import annotations

import csv
import re
import shutil
import sys
import xml.dom.minidom
from pathlib import Path

import pytest
from command import runtest, tasks_here
from hosts import NamespaceHosts

pytestmark = pytest.mark.network

HERE = Path(__file__).parent
RUN = ("-m", "deepmnist", "-b", 4, "--steps", 4, "--warmup", 1)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_plain(text: str) -> None:
    """Nothing that a terminal would obey."""
    odd = {letter for letter in text if not letter.isprintable() and letter != "\n"}
    assert not odd, text


@pytest.fixture(scope="module")
def lying(hosts: NamespaceHosts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `runtest` was started for a run on two lying nodes; its words are in out and err."""
    liar = hosts.folder / "liar"
    liar.write_text(f"#!{sys.executable}\n" + (HERE / "liar.py").read_text())
    liar.chmod(0o755)
    folder = tmp_path_factory.mktemp("lies") / "deep" / "er"
    folder.mkdir(parents=True)
    done = runtest(
        *RUN,
        *("-h", hosts.nodes_file(keys=f"python={liar}"), "-r", "/tmp/lies", "-v"),
        *("--ssh-config", hosts.ssh_config),
        cwd=folder,
        seconds=60,
    )
    (folder / "out").write_text(done.stdout)
    (folder / "err").write_text(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_node_that_lies_writes_nowhere_but_in_the_folder_of_its_run(
    lying: Path, hosts: NamespaceHosts
) -> None:
    (run,) = (lying / "logs" / "runs").iterdir()
    logs = {"worker-0.log", "worker-1.log", "ps-0.log", "ps-1.log"}
    assert everything(run) == {"run.json", "steps.csv", *logs}
    others = {name for name in everything(lying.parent.parent) if "/logs/runs/" not in name}
    within = {name for name in others if name.startswith("deep/er/logs/")}
    assert others - within == {"deep", "deep/er", "deep/er/out", "deep/er/err", "deep/er/logs"}
    assert all(re.match(r"deep/er/logs/(runs|\.?deepmnist_b4\.[a-z.]+)\Z", name) for name in within)
    assert not Path("/tmp/pwned").exists()
    for log in logs:
        text = (run / log).read_text()
        assert text.startswith("mine "), "of its own tasks, and nothing of others'"
        assert "not mine" not in text
    for index in (0, 1):
        assert not hosts.processes(index)


def test_what_a_lying_node_says_is_never_obeyed_by_a_terminal(lying: Path) -> None:
    for name in ("out", "err"):
        text = (lying / name).read_text()
        assert "HYPERLINK" in text or name == "out"
        assert_plain(text)


def test_the_cells_of_a_lying_node_are_no_formulas_and_its_plot_is_xml(lying: Path) -> None:
    (log,) = (lying / "logs").glob("*.csv")
    (row,) = csv.DictReader(log.read_text().splitlines())
    assert "cmd|" in row["gpu_type"]
    for cell in row.values():
        assert_plain(cell)
        assert not cell.startswith(("=", "+", "@", "\t"))
    xml.dom.minidom.parseString(log.with_suffix(".svg").read_bytes())  # noqa: S318 - our own drawing
    table = runtest("table", cwd=lying)
    assert table.returncode == 0, table.stderr
    assert_plain(table.stdout + table.stderr)
    (results,) = (lying / "logs").glob("*RESULTS.csv")
    assert not re.search(r"(?m)(?:^|,)\"?[=+@]", results.read_text())


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("check", "-m", "deepmnist"), 1, "deepmnist cannot be built there"),
        (("clean",), 1, "ended 9223372036854775808 processes"),
    ],
)
def test_check_and_clean_of_lying_nodes_are_told_plainly(
    command: tuple[str, ...],
    status: int,
    words: str,
    lying: Path,
    hosts: NamespaceHosts,
    tmp_path: Path,
) -> None:
    done = runtest(
        *(*command, "-h", hosts.nodes_file(keys=f"python={hosts.folder / 'liar'}")),
        *("-r", "/tmp/lies", "--ssh-config", hosts.ssh_config),
        cwd=tmp_path,
        seconds=60,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert_plain(done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
    assert words in " ".join(done.stdout.split())
    assert everything(tmp_path) == set()
    assert not Path("/tmp/pwned").exists()


HARMFUL = {
    "a semicolon": "/tmp/h1; touch /tmp/pwned",
    "a substitution": "/tmp/h2$(touch /tmp/pwned)`touch /tmp/pwned`",
    "quotes": "/tmp/h3'\"; touch /tmp/pwned; '\"",
    "a way up": "../tmp/h4/../h4/$(touch /tmp/pwned)",
    "a dash": "/tmp/h5/-rf --",
    "a glob": "/tmp/h6*?[a-z]",
    "a line break": "/tmp/h7\ntouch /tmp/pwned\n",
    "a terminal's escape": "/tmp/h8\x1b[2J",
    "bytes that are no text": "/tmp/h9\udcff",
    "a very long name": "/tmp/" + "h" * 100_000,
}


@pytest.mark.parametrize("directory", HARMFUL.values(), ids=HARMFUL.keys())
def test_a_harmful_directory_is_a_name_or_refused(
    directory: str, hosts: NamespaceHosts, tmp_path: Path
) -> None:
    done = runtest(
        *(*RUN, "-h", hosts.nodes_file(), "-r", directory, "--ssh-config", hosts.ssh_config),
        *("--python", sys.executable, "--dry-run"),
        cwd=tmp_path,
        seconds=60,
    )
    assert done.returncode in (0, 1, 2)
    check_refusal(done.stderr, done.returncode)
    for index in (0, 1):
        assert hosts.run(index, ["ls", "/tmp/pwned"], check=False).returncode, "it was run"
        assert not hosts.processes(index)
    assert not Path("/tmp/pwned").exists()
    assert everything(tmp_path) == set()


def check_refusal(text: str, status: int) -> None:
    assert_plain(text)
    assert "Traceback" not in text
    assert len(text) < 5000
    if status:
        assert re.search(r"^(runtest|Error): ", text, re.MULTILINE), text


ARGUMENTS = {
    "a model": ("-m", "x; touch pwned"),
    "a model with a way up": ("-m", "../../etc/passwd"),
    "a model with an escape": ("-m", "\x1b[2Jx"),
    "a network of Keras": ("-m", "keras:$(touch pwned)"),
    "a long model": ("-m", "x" * 100_000),
    "an interpreter": ("-m", "deepmnist", "--python", "x\ntouch pwned"),
    "another interpreter": ("-m", "deepmnist", "--python", "$(touch pwned)"),
    "a long interpreter": ("-m", "deepmnist", "--python", "x" * 100_000),
    "a nodes file": ("-m", "deepmnist", "-h", "$(touch pwned)\x1b[2J"),
    "a long nodes file": ("-m", "deepmnist", "-h", "x" * 100_000),
    "a long folder": ("-m", "deepmnist", "--logs", "x" * 100_000),
    "markup": ("scale", "-m", "deepmnist", "-x", "2", "-h", "[/red]x", "--resume"),
    "an option": ("-m", "deepmnist", "--\x1b[2Jx"),
    "a choice": ("-m", "deepmnist", "--strategy", "\x1b]0;x\x07"),
    "a number": ("-m", "deepmnist", "-b", "9" * 10_000),
    "a word": ("-m", "deepmnist", "\x1b[2J" * 1000),
    "bytes": ("-m", "deepmnist", "\udcff\udc9b"),
    "points": ("scale", "-m", "deepmnist", "--points", "1,\x1b[2J"),
    "a list": ("all", "-m", "a:1,\udcff:\x1b", "-x", "2"),
    "a table": ("table", "\x1b[2J" + "x" * 5000),
    "plots": ("plot", "[/b]\udcff"),
    "two sides": ("compare", "x" * 5000, "$(touch pwned)\x1b[2J"),
    "a table's file": ("table", ".", "-o", "x" * 5000),
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_harmful_arguments_are_refused_in_a_few_plain_words(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = runtest(*arguments, cwd=tmp_path, seconds=60)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    check_refusal(done.stderr, done.returncode)
    assert_plain(done.stdout)
    assert everything(tmp_path) <= {"logs"}
    assert not tasks_here(str(tmp_path))


def test_logs_in_a_folder_with_a_harmful_name_are_drawn_and_told_plainly(tmp_path: Path) -> None:
    folder = tmp_path / "l[b]x\x1b[2J\udcff$(touch pwned)"
    folder.mkdir()
    (folder / "x\x1b[2J_b32.csv").write_text("1,10\n2,19\n")
    for command in ("plot", "table"):
        done = runtest(command, folder.name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert_plain(done.stdout + done.stderr)
    shutil.rmtree(folder)
    assert everything(tmp_path) == set()
