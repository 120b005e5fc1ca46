"""What an installation brings, and what `make` does to a machine that has nothing yet."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from launcher.nodes import parse_nodes

ROOT = Path(__file__).parent.parent
PACKAGES = ("launcher", "perftest", "models")
BUILD_FILES = ("setup.cfg", "pyproject.toml", "LICENSE", "README.md")


# --- the wheel -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built from a copy of the sources, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignore)
    for name in BUILD_FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "installed")
    return folder / "installed"


def distribution(installed: Path) -> importlib.metadata.Distribution:
    (found,) = importlib.metadata.distributions(path=[str(installed)])
    return found


def requirements(installed: Path, extra: str) -> set[str]:
    """Names of what is required without an extra ("") or what the extra adds."""
    names = set()
    for line in distribution(installed).requires or []:
        what, _, marker = line.partition(";")
        found = re.search(r'extra == ["\'](\w+)["\']', marker)
        if (found[1] if found else "") == extra and 'platform_machine != "x86_64"' not in marker:
            names.add(re.split(r"[<>=!~ ]", what, maxsplit=1)[0].lower())
    return names


def test_launcher_alone_pulls_no_tensorflow(installed: Path) -> None:
    names = requirements(installed, "")
    assert "click" in names
    assert not [name for name in names if re.search("tensorflow|keras|h5py|torch|nvidia", name)]


def test_extra_cpu_adds_tensorflow_cpu_and_h5py(installed: Path) -> None:
    assert requirements(installed, "cpu") == {"tensorflow-cpu", "keras", "h5py"}


def test_extra_gpu_adds_tensorflow_with_cuda_and_h5py(installed: Path) -> None:
    assert requirements(installed, "gpu") == {"tensorflow[and-cuda]", "keras", "h5py"}


def test_every_requirement_of_a_user_has_a_lower_bound(installed: Path) -> None:
    lines = [line.partition(";") for line in distribution(installed).requires or []]
    users = [what for what, _, marker in lines if 'extra == "dev"' not in marker]
    assert users
    assert not [what for what in users if ">=" not in what]


def test_wheel_brings_the_command_runtest(installed: Path) -> None:
    (script,) = distribution(installed).entry_points.select(group="console_scripts")
    assert (script.name, script.value) == ("runtest", "launcher.cli:main")


def test_wheel_has_every_source_file_and_no_other(installed: Path) -> None:
    sources = {p.relative_to(ROOT) for package in PACKAGES for p in (ROOT / package).rglob("*.py")}
    packed = {path.relative_to(installed) for path in installed.rglob("*.py")}
    assert packed == sources


def test_wheel_carries_the_licence(installed: Path) -> None:
    assert distribution(installed).metadata["License"] == "Apache-2.0"
    (packed,) = installed.glob("*.dist-info/licenses/LICENSE")
    assert "Apache License" in packed.read_text()


def test_installed_launcher_finds_what_it_copies_to_the_nodes(installed: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import io, launcher.payload, tarfile\n"
        f"assert launcher.payload.__file__.startswith({str(installed)!r})\n"
        "data = launcher.payload.make_payload().data\n"
        "print(*tarfile.open(fileobj=io.BytesIO(data)).getnames())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=installed.parent
    )
    assert done.returncode == 0, done.stderr
    assert {"perftest/agent.py", "models/deepmnist.py"} <= set(done.stdout.split())


def test_example_of_a_nodes_file_is_one() -> None:
    text = (ROOT / "nodes.example").read_text("utf-8")
    nodes = parse_nodes(text, "nodes.example")
    assert len(nodes) >= 3
    shown = {"python", "gpus", "first_port"}
    assert shown == {key for key in shown for node in nodes if getattr(node, key) is not None}
    for word in ("hostname", "alias", "python=", "gpus=", "port=", "~/.ssh/config", "key"):
        assert word in "".join(line for line in text.splitlines() if line.startswith("#"))


# --- scripts/environment ---------------------------------------------------------------------

# Stands for Python, venv and pip. What it should be is in files beside it.
FAKE_PYTHON = r"""#!/bin/bash
here=__HERE__
set -- "$@"
case "$*" in
    *version_info\ *|*'<= sys.version_info'*) [ ! -e "$here/too-old" ] ;;
    *'"%d.%d"'*) if [ -e "$here/too-old" ]; then echo 3.9; else echo 3.11; fi ;;
    *ensurepip*) [ ! -e "$here/no-ensurepip" ] ;;
    '-m venv .venv') echo venv >>"$here/did"; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    '-m pip --version') ;;
    '-m pip install'*)
        echo "pip ${*: -1}" >>"$here/did"
        [ ! -e "$here/no-network" ] || { echo 'ERROR: no network'; exit 1; }
        echo 'Installing collected packages: a, b'
        touch .venv/half
        [ ! -e "$here/killed" ] || { rm "$here/killed"; kill -9 $PPID; exit 1; }
        touch .venv/whole ;;
    *) echo "fake python: what is $*?" >&2; exit 99 ;;
esac
"""


class Checkout:
    """A copy of what scripts/environment reads, and a PATH on which Python and apt are fakes."""

    def __init__(self, folder: Path) -> None:
        self.fakes = folder / "fakes"
        self.root = folder / "a checkout"  # a space, as in people's folders
        self.fakes.mkdir(parents=True)
        self.root.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root)
        self.fake("python3", FAKE_PYTHON.replace("__HERE__", f"'{self.fakes}'"))
        self.fake("nvidia-smi", "#!/bin/sh\nexit 9\n")
        self.fake("apt-get", "#!/bin/sh\necho apt-get is not to be used >&2\nexit 1\n")

    def fake(self, name: str, text: str) -> None:
        (self.fakes / name).write_text(text)
        (self.fakes / name).chmod(0o755)

    def set(self, *what: str) -> None:
        for name in what:
            (self.fakes / name).touch()

    def make(self, *kind: str) -> subprocess.CompletedProcess[str]:
        """Run it. `did` is told what it did to the environment since the last time."""
        (self.fakes / "did").write_text("")
        return subprocess.run(
            ["bash", str(self.root / "scripts" / "environment"), *kind],
            env={"PATH": f"{self.fakes}:{os.defpath}", "PYTHON": "python3"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    @property
    def did(self) -> list[str]:
        return (self.fakes / "did").read_text().splitlines()

    @property
    def is_whole(self) -> bool:
        return (self.root / ".venv" / "whole").exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_environment_is_made_once(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    assert checkout.did == ["venv", "pip .[cpu]"]
    again = checkout.make()
    assert (again.returncode, again.stderr, checkout.did) == (0, "", [])


def test_tools_for_tests_come_only_when_asked_for(checkout: Checkout) -> None:
    checkout.make()
    assert checkout.make("dev").returncode == 0
    assert checkout.did == ["pip .[cpu,dev]"]
    checkout.make()
    assert checkout.did == []


def test_environment_for_tests_serves_runs_too(checkout: Checkout) -> None:
    checkout.make("dev")
    assert checkout.did == ["venv", "pip .[cpu,dev]"]
    checkout.make()
    assert checkout.did == []


def test_changed_requirements_are_installed(checkout: Checkout) -> None:
    checkout.make()
    with (checkout.root / "setup.cfg").open("a") as file:
        file.write("\n# changed\n")
    checkout.make()
    assert checkout.did == ["pip .[cpu]"]


def test_installation_that_was_killed_starts_again(checkout: Checkout) -> None:
    checkout.set("killed")
    checkout.make()
    assert not checkout.is_whole
    again = checkout.make()
    assert again.returncode == 0
    assert "cut off" in again.stderr
    assert checkout.did == ["venv", "pip .[cpu]"]
    assert checkout.is_whole


def test_killed_installation_of_tools_does_not_pass_for_an_environment(checkout: Checkout) -> None:
    checkout.make()
    checkout.set("killed")
    checkout.make("dev")
    checkout.make()
    assert checkout.did == ["venv", "pip .[cpu]"]


def test_failed_download_fails_and_says_what_pip_said(checkout: Checkout) -> None:
    checkout.set("no-network")
    done = checkout.make()
    assert done.returncode != 0
    assert "ERROR: no network" in done.stderr
    assert checkout.make().returncode != 0


def test_failed_download_of_tools_leaves_a_good_environment_alone(checkout: Checkout) -> None:
    checkout.make()
    checkout.set("no-network")
    assert checkout.make("dev").returncode != 0
    assert checkout.make().returncode == 0
    assert checkout.did == []
    assert checkout.is_whole


def test_checkout_that_was_moved_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.make()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    checkout.make()
    assert checkout.did == ["venv", "pip .[cpu]"]


def test_gpu_that_was_added_gets_its_tensorflow_in_a_new_environment(checkout: Checkout) -> None:
    checkout.make()
    checkout.fake("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA A100 (UUID: GPU-1)'\n")
    checkout.make()
    assert checkout.did == ["venv", "pip .[gpu]"]


def test_python_that_is_too_old_is_told_so(checkout: Checkout) -> None:
    checkout.set("too-old")
    done = checkout.make()
    assert done.returncode != 0
    assert "Python 3.10 to 3.13 is needed, and python3 is 3.9." in done.stderr
    assert not (checkout.root / ".venv").exists()


def test_python_that_cannot_make_environments_is_told_what_to_install(checkout: Checkout) -> None:
    checkout.set("no-ensurepip")
    done = checkout.make()
    assert done.returncode != 0
    assert "apt-get install python3.11-venv" in done.stderr


# --- scripts/system-packages -----------------------------------------------------------------

RECORD = '#!/bin/sh\nprintf "%s " "$(basename "$0")" "$@" >>__HERE__/did\necho >>__HERE__/did\n'


class Machine:
    """A PATH of fakes alone, on which `apt-get install` makes the programs appear."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.folder = folder
        (folder / "did").touch()
        for name in ("bash", "sort", "mktemp", "rm", "tail", "env", "basename"):
            (folder / name).symlink_to(shutil.which(name) or name)
        self.fake("id", f"#!/bin/sh\necho {uid}\n")

    def fake(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text.replace("__HERE__", str(self.folder)))
        (self.folder / name).chmod(0o755)

    def need(self, *needs: str) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / "scripts" / "system-packages")
        # Under its own PATH it also looks into /usr/sbin; these names are in none.
        return subprocess.run(
            [str(self.folder / "bash"), script, *needs],
            env={"PATH": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=30,
        )

    @property
    def did(self) -> list[str]:
        return [line.strip() for line in (self.folder / "did").read_text().splitlines()]


APT = RECORD + 'case "$*" in *install*) : >__HERE__/zzd; /bin/chmod +x __HERE__/zzd ;; esac\n'
INSTALL = "apt-get -o DPkg::Lock::Timeout=120 -qq -y --no-install-recommends install zz-server"


def test_nothing_is_installed_when_all_programs_are_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path, uid=0)
    machine.fake("apt-get", APT)
    done = machine.need("bash=bash", "sort=coreutils")
    assert (done.returncode, done.stderr, machine.did) == (0, "", [])


def test_root_installs_what_is_missing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, uid=0)
    machine.fake("apt-get", APT)
    done = machine.need("zzd=zz-server", "sort=coreutils")
    assert done.returncode == 0, done.stderr
    assert machine.did == [INSTALL]


def test_user_with_passwordless_sudo_installs_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path, uid=1000)
    machine.fake("apt-get", APT)
    machine.fake("sudo", RECORD + 'shift; exec "$@"\n')
    machine.fake("true", "#!/bin/sh\n")
    done = machine.need("zzd=zz-server")
    assert done.returncode == 0, done.stderr
    assert INSTALL in machine.did


def test_user_without_sudo_is_told_what_is_missing_and_why(tmp_path: Path) -> None:
    machine = Machine(tmp_path, uid=1000)
    machine.fake("apt-get", APT)
    machine.fake("sudo", "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    done = machine.need("zzd=zz-server")
    assert done.returncode == 1
    assert machine.did == []
    assert "missing: zz-server; not installed, because that needs root" in done.stderr
    assert "sudo apt-get install zz-server" in done.stderr


def test_machine_without_apt_is_left_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path, uid=0)
    done = machine.need("zzd=zz-server")
    assert done.returncode == 1
    assert "no apt-get" in done.stderr


def test_old_lists_of_packages_are_renewed_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path, uid=0)
    fails_first = '[ -e __HERE__/fresh ] || { case "$*" in *update*) : >__HERE__/fresh ;; esac; '
    machine.fake("apt-get", RECORD + fails_first + "exit 100; }\n" + APT.partition("\n")[2])
    done = machine.need("zzd=zz-server")
    assert done.returncode == 0, done.stderr
    assert machine.did[:2] == [INSTALL, "apt-get -qq update"]


# --- make and CI -----------------------------------------------------------------------------

# These tests run under a make themselves, which tells those below it to talk differently.
OUTSIDE_MAKE = {key: text for key, text in os.environ.items() if not key.startswith("MAKE")}


def test_ci_checks_and_tests_and_stops_at_the_first_failure(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    makefile = tmp_path / "Makefile"

    def ci() -> tuple[int, list[str]]:
        done = subprocess.run(
            ["bash", str(tmp_path / ".ci" / "run")],
            env=OUTSIDE_MAKE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout.splitlines()

    makefile.write_text("check:\n\t@echo checked\ntest:\n\t@echo 3 passed\n")
    assert ci() == (0, ["checked", "3 passed"])
    makefile.write_text("check:\n\t@false\ntest:\n\t@echo 3 passed\n")
    status, lines = ci()
    assert status != 0
    assert "3 passed" not in lines
    makefile.write_text("check:\n\t@echo checked\ntest:\n\t@echo 1 failed; false\n")
    assert ci()[0] != 0


def test_make_alone_lists_what_there_is() -> None:
    done = subprocess.run(
        ["make", "-C", str(ROOT)], env=OUTSIDE_MAKE, capture_output=True, text=True
    )
    assert done.returncode == 0
    for target in ("run", "test", "check", "clean"):
        assert f"make {target} " in done.stdout
