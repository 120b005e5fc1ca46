"""The launcher with many nodes, which another process plays from recorded messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from replay_1000_nodes import failures

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "replay_1000_nodes.py"
# 1,000 nodes at this rate, and what the program takes without any, stay under 500 MB.
MOST_MIB_PER_NODE = 0.4


def test_too_much_memory_and_too_few_messages_a_second_fail() -> None:
    good = {"peak_mib": 300.0, "messages_per_second": 5000.0, "needed_per_second": 2000.0}
    assert list(failures(good)) == []
    (fat,) = failures({**good, "peak_mib": 480.0})  # 503 MB
    assert fat == "480 MiB are held, and 500 MB are the most"
    (slow,) = failures({**good, "messages_per_second": 1999.0})
    assert slow == "1999 messages a second are taken, and 2000 come"


def test_two_hundred_nodes_are_borne_in_little_memory_and_lose_no_message() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--nodes", "200", "--idle", "0.2", "--json"],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # it has counted the steps of all workers itself
    assert found["nodes"] == 200
    assert found["mib_per_node"] < MOST_MIB_PER_NODE
