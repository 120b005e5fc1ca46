"""A check as JSON for programs. docs/check.md documents every key; they change with `format`."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from launcher.check_verdict import Verdict
from launcher.checked import OK, Checked, Link, NodeState, worst
from launcher.findings_network import data_addresses, data_interface

FORMAT = 1


def check_json(verdict: Verdict) -> str:
    """The whole check as one JSON object."""
    checked = verdict.checked
    asked = checked.asked
    return json.dumps(
        {
            "format": FORMAT,
            "mark": verdict.mark,
            "would_fail": verdict.would_fail,
            "asked": {
                "model": asked.model or None,
                "batch_size": asked.batch_size,
                "nodes": len(checked.nodes),
                "gpus_per_node": asked.gpus_per_node,
                "strategy": asked.strategy,
                "synchronous": asked.synchronous,
                "device": asked.device,
            },
            "nodes": [_node(state, verdict) for state in checked.nodes],
            "links": [_link(link, checked) for link in checked.links],
            "ceiling": _ceiling(verdict),
            "findings": [dataclasses.asdict(one) for one in verdict.findings],
            "notes": list(verdict.notes),
        },
        indent=2,
        allow_nan=False,
    )


def _node(state: NodeState, verdict: Verdict) -> dict[str, Any]:
    alias = state.node.alias
    about = [one for one in verdict.findings if alias in one.nodes]
    return {
        "alias": alias,
        "hostname": state.node.hostname,
        "where": state.node.where,
        "mark": worst(about) if about else OK,
        "answered": state.hello is not None,
        "facts": _facts(state, verdict.checked),
    }


def _facts(state: NodeState, checked: Checked) -> dict[str, Any] | None:
    hello, seen = state.hello, state.inspection
    if hello is None:
        return None
    interface = data_interface(state, checked)
    clock = dataclasses.asdict(state.clock) if state.clock else None
    return {
        "host": hello.host,
        "user": hello.user,
        "directory": hello.directory,
        "disk_free_bytes": hello.disk_free_bytes,
        "python": hello.executable,
        "versions": dataclasses.asdict(hello.versions),
        "cpus": len(hello.cpus),
        "cpu_model": hello.cpu_model,
        "instruction_sets": list(seen.instruction_sets) if seen else None,
        "load": seen.load if seen else None,
        "memory_bytes": hello.memory_bytes,
        "memory_available_bytes": seen.memory_available_bytes if seen else None,
        "gpus": [dataclasses.asdict(gpu) for gpu in hello.gpus],
        "gpu_problem": hello.gpu_problem,
        "clock": clock,
        "free_ports": list(hello.free_ports),
        "data_addresses": data_addresses(state, checked),
        "data_interface": dataclasses.asdict(interface) if interface else None,
        "settings": {
            "governor": seen.governor,
            "huge_pages": seen.huge_pages,
            "open_files": seen.open_files,
            "swap_used_bytes": seen.swap_used_bytes,
            "noexec": seen.noexec,
            "proxies": list(seen.proxies),
        }
        if seen
        else None,
    }


def _link(link: Link, checked: Checked) -> dict[str, Any]:
    return {
        **dataclasses.asdict(link),
        "source": checked.nodes[link.source].node.alias,
        "target": checked.nodes[link.target].node.alias,
    }


def _ceiling(verdict: Verdict) -> dict[str, Any] | None:
    top, checked = verdict.ceiling, verdict.checked
    if top is None:
        return None
    links = [
        {**dataclasses.asdict(link), "node": checked.nodes[link.node].node.alias}
        for link in top.links
    ]
    return {**dataclasses.asdict(top), "links": links, "counted_by": checked.counted_by}
