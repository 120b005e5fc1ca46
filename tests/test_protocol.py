"""The messages: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perftest import protocol
from perftest.protocol import (
    Cluster,
    Exited,
    Failed,
    Finished,
    FromTask,
    Go,
    Gpu,
    Heartbeat,
    Hello,
    Job,
    MessageError,
    Place,
    Ready,
    Start,
    StepTimes,
    TracePiece,
    Versions,
)

JOB = Job(
    model="resnet50",
    strategy="parameter_server",
    batch_size=32,
    warmup_steps=10,
    measured_steps=50,
    synchronous=True,
    aggregate=4,
    precision="fp32",
    learning_rate=0.01,
    seed=1,
    cluster=Cluster(ps=("a:2222",), worker=("a:2230", "b:2230")),
    model_options={"dropout": 0.0, "num_layers": 3, "batch_norm": True},
)
HELLO = Hello(
    version=1,
    host="gpu3",
    user="ana",
    directory="/tmp/perftest-1000",
    executable="/usr/bin/python3",
    versions=Versions("3.11.2", "2.21.0", "3.15.1", ""),
    gpus=(Gpu("GPU-1", "NVIDIA H100", 81559, "580.1"),),
    gpu_problem="",
    cpus=(0, 1),
    cpu_model="x",
    memory_bytes=1 << 40,
    disk_free_bytes=5,
    addresses=("10.0.0.1",),
    machine="m",
    network="n",
    free_ports=(2222, 2223),
)
MESSAGES = [
    HELLO,
    Start("r1", JOB, (Place("worker", 0, (0,), None), Place("ps", 0, (), None))),
    Go("r1"),
    Heartbeat(),
    FromTask("r1", "worker", 3, StepTimes(0, True, (0.5, 0.25), (0.4, None), (2.3, None), (1, 2))),
    FromTask("r1", "worker", 3, Finished(10, None, "CPU")),
    FromTask("r1", "worker", 3, TracePiece("AAEC", True)),
    Exited("r1", "ps", 0, None, 9, ("last line",)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was_sent(message: object) -> None:
    line = protocol.encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert protocol.decode(line) == message


def test_not_a_number_travels_as_none() -> None:
    times = StepTimes(0, True, (0.5,), (None,), (math.nan,), (1,))
    assert protocol.decode(protocol.encode(times)).losses == (None,)


REFUSED = {
    "not JSON": b"hello there",
    "a number": b"42",
    "a list": b'["go"]',
    "no type": b'{"run_id": "r1"}',
    "an unknown type": b'{"type": "format_disk"}',
    "a type that is no word": b'{"type": ["go"]}',
    "a missing field": b'{"type": "go"}',
    "an unknown field": b'{"type": "go", "run_id": "r", "shell": "sh"}',
    "a number for a text": b'{"type": "go", "run_id": 3}',
    "a true for a number": b'{"type": "finished", "parameters": true, "parameter_norm": 1.0,'
    b' "device": "CPU"}',
    "NaN": b'{"type": "phase", "name": "x", "elapsed_seconds": NaN}',
    "a huge integer": b'{"type": "phase", "name": "x", "elapsed_seconds": 1' + b"0" * 400 + b"}",
    "a number past all floats": b'{"type": "phase", "name": "x", "elapsed_seconds": 1e999}',
    "deep nesting": b"[" * 100_000,
    "a message where another is due": b'{"type": "from_task", "run_id": "r", "role": "worker",'
    b' "index": 0, "message": {"type": "stop"}}',
    "bytes that are no UTF-8": b'{"type": "go", "run_id": "\xff"}',
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_is_refused_with_a_short_printable_reason(line: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        protocol.decode(line)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 300


def test_a_line_over_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MessageError, match="more than 4 MiB"):
        protocol.decode(b'"' + b"x" * protocol.MAX_LINE_BYTES + b'"')


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(kind=st.sampled_from(sorted(protocol._CODEC.by_name)), fields=_JSON, data=st.data())
def test_no_json_does_more_than_decode_or_be_refused(
    kind: str, fields: object, data: st.DataObject
) -> None:
    names = list(protocol._CODEC.hints(protocol._CODEC.by_name[kind]))
    value = {"type": kind, **{name: data.draw(_JSON) for name in names}, "extra": fields}
    if data.draw(st.booleans()):
        del value["extra"]
    try:
        message = protocol.decode(json.dumps(value).encode())
    except MessageError:
        return
    assert protocol.decode(protocol.encode(message)) == message


def test_names_of_messages_are_the_words_of_the_design() -> None:
    for message, name in ((Ready(), "ready"), (Failed("x"), "failed")):
        assert json.loads(protocol.encode(message))["type"] == name
