"""The launcher with many nodes, which another process plays from recorded messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "replay_1000_nodes.py"
# 1,000 nodes at this rate, and what the program takes without any, stay under 500 MB.
MOST_MIB_PER_NODE = 0.4


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
