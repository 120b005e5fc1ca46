"""What a node says of its state when `check` asks: a real agent, and recorded texts of others."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import ROOT, AgentProcess, wait_until_gone
from test_gpus import EIGHT, fake_nvidia_smi

from perftest import protocol
from perftest.gpus import find_gpu_use, parse_gpu_use
from perftest.inspection import chosen, instruction_sets
from perftest.networks import find_interfaces, resolve_all
from perftest.protocol import (
    ClockQuery,
    ClockReading,
    CountParameters,
    ErrandFailed,
    Inspect,
    Inspection,
    MessageError,
    ParameterCount,
)

XEON = (
    "flags\t\t: fpu sse2 avx avx2 fma avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8\n"
)
USE = (
    "GPU-0c89852c-d268-c3f3-1b07-005d5ae1dc3f, 73113, 98\n"
    "GPU-1c89852c-d268-c3f3-1b07-005d5ae1dc3f, 4, 0\n"
    "GPU-2c89852c-d268-c3f3-1b07-005d5ae1dc3f, 4, [N/A]\n"
)
PROCESSES = (
    "GPU-0c89852c-d268-c3f3-1b07-005d5ae1dc3f, 4021\n"
    "GPU-0c89852c-d268-c3f3-1b07-005d5ae1dc3f, 4022\n"
)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with AgentProcess(tmp_path_factory.mktemp("agent")) as made:
        shutil.copytree(ROOT / "models", made.directory / "models")
        made.greet()
        yield made


def test_the_clock_is_read_while_the_query_is_there(agent: AgentProcess) -> None:
    before = time.time()
    agent.send(ClockQuery(before))
    reading = agent.next(ClockReading)
    assert reading.asked == before
    assert before <= reading.clock <= time.time()


def test_a_node_says_what_names_mean_there_and_what_its_state_is(agent: AgentProcess) -> None:
    agent.send(Inspect(("localhost", "no-such-host.invalid")))
    said = agent.next(Inspection, 30.0)
    assert [one.name for one in said.resolved] == ["localhost", "no-such-host.invalid"]
    assert "127.0.0.1" in said.resolved[0].addresses
    assert not said.resolved[1].addresses
    assert said.resolved[1].problem
    assert said.memory_available_bytes > 1 << 20
    assert said.open_files > 10
    assert "lo" in [interface.name for interface in said.interfaces]


@pytest.mark.tensorflow
def test_a_node_counts_the_parameters_of_a_network(agent: AgentProcess) -> None:
    agent.send(CountParameters("deepmnist"))
    count = agent.next(ParameterCount, 60.0)
    assert count.problem == ""
    assert sum(count.sizes) == 4 * 3_274_634


def test_a_network_that_cannot_be_built_is_an_answer(agent: AgentProcess) -> None:
    agent.send(CountParameters("resnet5"))
    count = agent.next(ParameterCount, 60.0)
    assert count.sizes == ()
    assert "'resnet5' is not a model" in count.problem


def test_an_errand_that_dies_is_told_and_the_agent_lives(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "agent") as agent:
        (agent.directory / "perftest" / "counting.py").write_text("import os; os._exit(7)")
        agent.greet()
        agent.send(CountParameters("alexnet"))
        failed = agent.next(ErrandFailed)
        assert (failed.errand, failed.error) == (
            "count_parameters",
            "the process ended with status 7",
        )
        agent.send(ClockQuery(1.0))
        assert agent.next(ClockReading).asked == 1.0


def test_an_errand_that_fails_says_why(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "agent") as agent:
        source = agent.directory / "perftest" / "inspection.py"
        source.write_text(source.read_text().replace("os.getloadavg()", "os.stat('/no such')"))
        agent.greet()
        agent.send(Inspect(()))
        failed = agent.next(ErrandFailed)
    assert failed.errand == "inspect"
    assert failed.error.startswith("FileNotFoundError: ")


def test_an_errand_goes_with_its_agent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    endless = (
        f"import os, pathlib, time\npathlib.Path({str(tmp_path / 'new')!r})"
        f".write_text(str(os.getpid()))\nos.rename({str(tmp_path / 'new')!r}, {str(pid_file)!r})\n"
        "time.sleep(600)\n"
    )
    with AgentProcess(tmp_path / "agent") as agent:
        (agent.directory / "perftest" / "counting.py").write_text(endless)
        agent.greet()
        agent.send(CountParameters("alexnet"))
        deadline = time.monotonic() + 10.0
        while not pid_file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        agent.process.kill()
        assert not wait_until_gone([int(pid_file.read_text())], 5.0)


def test_instruction_sets_are_those_that_matter_in_a_fixed_order() -> None:
    assert instruction_sets(XEON) == (
        *("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16"),
        *("amx_tile", "amx_int8", "amx_bf16"),
    )
    assert instruction_sets("Features\t: fp asimd sve bf16 i8mm\n") == (
        "asimd",
        "sve",
        "bf16",
        "i8mm",
    )
    assert instruction_sets("") == ()


def test_the_setting_of_huge_pages_is_the_word_in_brackets() -> None:
    assert chosen("always [madvise] never\n") == "madvise"
    assert chosen("") == ""


def test_a_busy_gpu_is_told_with_its_processes() -> None:
    busy, idle, unknown = parse_gpu_use(USE, PROCESSES)
    assert (busy.used_mib, busy.utilization_percent, busy.processes) == (73113, 98, 2)
    assert (idle.used_mib, idle.utilization_percent, idle.processes) == (4, 0, 0)
    assert unknown.utilization_percent is None


def test_an_nvidia_smi_that_answers_something_else_is_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvidia_smi(tmp_path, EIGHT)  # four columns where three are asked for
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_gpu_use() == ()


def test_interfaces_have_their_addresses_and_a_speed_only_if_the_system_knows_one() -> None:
    (loopback,) = [each for each in find_interfaces() if each.name == "lo"]
    assert "127.0.0.1" in loopback.addresses
    assert (loopback.virtual, loopback.speed_mbit) == (True, None)


def test_a_name_that_takes_too_long_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def slow(name: str, *rest: object, **more: object) -> object:
        if name == "slow.invalid":
            time.sleep(5.0)
        return real("127.0.0.1", None, type=socket.SOCK_STREAM)

    monkeypatch.setattr("perftest.networks._LOOKUP_SECONDS", 0.3)
    monkeypatch.setattr("socket.getaddrinfo", slow)
    late, quick = resolve_all(("slow.invalid", "quick.invalid"))
    assert quick.addresses == ("127.0.0.1",)
    assert late.problem.startswith("no answer within")


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"clock_reading","asked":1,"clock":-1}',
        b'{"type":"clock_reading","asked":1,"clock":1e300}',
        b'{"type":"parameter_count","model":"m","sizes":[4,-4],"problem":""}',
        b'{"type":"parameter_count","model":"m","sizes":[true],"problem":""}',
        b'{"type":"inspection"}',
    ],
)
def test_what_no_node_can_be_is_no_message(line: bytes) -> None:
    with pytest.raises(MessageError):
        protocol.decode(line)
