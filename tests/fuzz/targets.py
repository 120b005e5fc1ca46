"""What must hold of each parser whatever it is given: one function of bytes for each.

A target raises for what a parser must not do: an exception other than its documented one, a message
that a terminal would act on, a value that does not come back. Hypothesis runs them in the tests
(tests/test_hostile_input.py), atheris for as long as one likes (`make fuzz`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from fuzz import node_targets, option_targets
from fuzz.bounds import refusing, scratch
from fuzz.node_targets import HELLO
from launcher.binding import check_cpu_bind
from launcher.binding_profiles import make as make_binding
from launcher.binding_profiles import parse as parse_bindings
from launcher.errors import LogsError, NodesFileError, SshConfigError, UsageError
from launcher.nodes import parse_nodes
from launcher.results.log_reading import read_log
from launcher.results.plot import draw
from launcher.results.steps import read_steps
from launcher.results.table import results_table
from launcher.sweep import parse_items, parse_points
from launcher.sweep_record import newest
from launcher.text import cleaned
from launcher.transports.known_hosts import parse_found
from launcher.transports.ssh_config import Hop, parse_ssh_g
from perftest import protocol
from perftest.gpus import parse_gpus, visible_gpus
from perftest.protocol import Hello, MessageError


def nodes_file(data: bytes) -> None:
    """The text of a nodes file becomes nodes, or NodesFileError."""
    with refusing(NodesFileError):
        for node in parse_nodes(data.decode("utf-8", "replace"), "nodes"):
            assert node.label.isprintable()
            assert not node.alias.startswith("-")


def message(data: bytes) -> None:
    """A line becomes a message that can be sent on, or MessageError."""
    refusal = ""
    try:
        found = protocol.decode(data)
    except MessageError as error:
        refusal = str(error)
    if refusal:
        assert refusal.isprintable()
        assert len(refusal) <= 300
        return
    assert protocol.decode(protocol.encode(found)) == found
    assert cleaned(cleaned(found)) == cleaned(found)


def nvidia_smi(data: bytes) -> None:
    """Any two answers of nvidia-smi become GPUs that a Hello can carry, or none."""
    text = data.decode("utf-8", "replace")
    query, _, rest = text.partition("\f")
    listing, _, visible = rest.partition("\f")
    gpus = parse_gpus(query, listing)
    assert set(visible_gpus(gpus, visible)) <= set(gpus)
    hello = Hello(**{**HELLO, "gpus": gpus})
    assert protocol.decode(protocol.encode(hello)).gpus == gpus


def ssh_config(data: bytes) -> None:
    """What `ssh -G` prints becomes a target, or SshConfigError."""
    with refusing(SshConfigError):
        target = parse_ssh_g(data.decode(errors="surrogateescape"), Hop("node"), None, "node")
        assert 0 < target.port < 65536
        for word in (target.hostname, target.user):
            assert not set(word) & set("\0\n`'\"$;&<>|(){} ")


def known_hosts(data: bytes) -> None:
    """What `ssh-keygen -F` prints becomes keys."""
    for key in parse_found(data.decode("utf-8", "replace"), Path("known_hosts")):
        assert key.base64
        assert key.line >= 0


def csv_log(data: bytes) -> None:
    """A CSV log becomes a table, a drawing that is XML, and a table to print; or LogsError."""
    with scratch("resnet_b32.csv", data) as path, refusing(LogsError):
        rows, _ = read_log(path)
        for column in ("model", "gpu_type", "strategy"):
            assert all(cell.isprintable() for cell in rows[column])
        if len(rows):
            results_table(rows)
            ElementTree.fromstring(draw(rows))  # noqa: S314 - our own drawing


def steps_csv(data: bytes) -> None:
    """A table of steps becomes one, or LogsError."""
    with scratch("steps.csv", data) as path, refusing(LogsError):
        read_steps(path, [])


def sweep_record(data: bytes) -> None:
    """A record of a sweep is the one that is looked for, or it is passed over."""
    with scratch("sweeps/20260101-000000-abcdef.json", data) as path:
        assert newest(path.parent.parent, {"points": [1]}) is None or b"points" in data


def lists(data: bytes) -> None:
    """`model:batch` lists and lists of points become what they say, or UsageError."""
    text = data.decode(errors="surrogateescape")
    with refusing(UsageError):
        assert all(item.batch_size > 0 for item in parse_items(text))
    with refusing(UsageError):
        assert list(parse_points(text)) == sorted(set(parse_points(text)))


def bindings(data: bytes) -> None:
    """A file of bindings gives profiles that can be used, or BindingError."""
    text = data.decode(errors="replace")
    with refusing(UsageError):
        for name, keys in parse_bindings(text, "bindings").items():
            made = make_binding(name, keys, "bindings")
            assert all(value.isprintable() for value in made.environment.values())
    with refusing(UsageError):
        assert check_cpu_bind(text) == text


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(nodes_file, message, nvidia_smi, ssh_config, known_hosts),
        *(csv_log, steps_csv, sweep_record, lists, bindings),
        *node_targets.TARGETS,
        *option_targets.TARGETS,
    )
}

# One that is right for each, for a fuzzer to begin with.
SEEDS: dict[str, tuple[bytes, ...]] = {
    "nodes_file": (b"# a\nhost0 node0 python=/usr/bin/python3 gpus=2 port=2222\n[::1] n1\n",),
    "message": (
        protocol.encode(Hello(**HELLO)),  # type: ignore[arg-type]
        protocol.encode(
            protocol.FromTask(
                "r", "worker", 0, protocol.StepTimes(0, True, (0.5,), (None,), (1.0,), (1,))
            )
        ),
        b'{"type": "\\ud800"}',
        b'{"type' + b"\xff" * 200 + b"}",
        b'{"type": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"type": "phase", "name": ' + b"[" * 500 + b"]" * 500 + b', "elapsed_seconds": 1}',
        b'{"type": "log", "run_id": "r", "role": "ps", "index": 9223372036854775807, '
        b'"text": "\\ud800\\u001b[2J", "omitted_bytes": 0}',
    ),
    "nvidia_smi": (
        "GPU-1, NVIDIA H100, 81559, 580.1\fGPU 0: NVIDIA H100 (UUID: GPU-1)\n"
        "  MIG 1g.10gb Device 0: (UUID: MIG-2)\f0,GPU-1,²".encode(),
        "GPU-1, x, ²³, 1\nGPU-2, x, 99999999999999999999999999, 1".encode(),
    ),
    "ssh_config": (
        b"hostname 10.0.0.1\nuser root\nport 22\nconnecttimeout 8\nproxyjump a@b:2,[::1]:22\n"
        b"userknownhostsfile ~/.ssh/known_hosts /etc/x\nidentityfile ~/.ssh/%h${HOME}\n",
        b"port 99999\n",
        "connecttimeout ²\nuser a\n".encode(),
        b"identityfile ~\0/x\nuser a\n",
        b"proxyjump ssh://[::1:99999999\nuser a\n",
    ),
    "known_hosts": (
        b"# Host h found: line 3 \n|1|a|b ssh-rsa AAAA\n@revoked * ssh-rsa BBBB\n",
        b"# Host h found: line " + b"9" * 5000 + b"\nh ssh-rsa AAAA\n",
    ),
    "csv_log": (
        b"1,100.5\n2,190.1\n4,350\n",
        b"gpus,images_per_sec,nodes,gpus_per_node,gpu_type\n1,10,1,1,\x1b[2J\xef\xbf\xbe\n",
        b"gpus,images_per_sec,nodes,gpus_per_node\n1,10,inf,0\n",
        b"gpus,images_per_sec,nodes,gpus_per_node\n1,10,0,0\n",
        b"gpus,images_per_sec,mean_time,ci_low,ci_high\n1e300,1e300,1,1,1e308\n",
        b"gpus,images_per_sec\n1,1e-320\n2,1e308\n",
        b'"' + b"x" * 200_000 + b'"\n',
        b"1,2\n\x00\x00\n",
    ),
    "steps_csv": (
        b"worker,node,step,phase,seconds,loss,global_step,a,a\n0,n,0,measured,x,1,1,0,0\n",
        b"worker,node,step,phase,seconds,loss,global_step,compute_seconds\n"
        b"0,n,0,measured,0.5,1,1,0.4\n",
        b"worker,node,step,phase,seconds,loss,global_step\n9999\r9999999999999999,n,0,measured,1,,1\n",
    ),
    "sweep_record": (
        json.dumps({"argv": [], "configuration": {"points": [1]}}).encode(),
        b"[" * 100_000,
        b"\xff\xfe",
    ),
    "lists": (b"alexnet:512,keras:VGG16:32", b"1,3,6", b"\xff:1", b"9" * 5000, b"1,71\x1c"),
    "bindings": (
        b"[a]\nlike = b\ncpu-bind = cores\nintra-op-threads = cores\nKMP_BLOCKTIME = {cpus}\n",
        b"[a]\n[a]\n",
        b"[a]\nOMP_NUM_THREADS = 1\n  2\n",
        b"[DEFAULT]\nx\n",
        b"map_cpu:0,0x1",
        b"mask_cpu:3,0xc",
    ),
    **node_targets.SEEDS,
    **option_targets.SEEDS,
}
