"""The workers' traces, put where TensorBoard looks for them: DIR/plugins/profile/RUN/."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from pathlib import Path

from launcher.errors import ResultsError
from launcher.results.files import results_errors, safe_name
from launcher.text import printable
from perftest.protocol import MOST_TRACE_BYTES, TRACE_PIECE_BYTES, TracePiece


class Traces:
    """Writes the traces of one run as their pieces come, each whole or not at all.

    The names of the files are ours, and nothing in them is a node's. written: by worker.
    problems: what went wrong, for people; it ends no run.
    """

    def __init__(self, directory: Path, run_id: str) -> None:
        self.folder = Path(directory) / "plugins" / "profile" / safe_name(run_id)
        self.written: dict[int, Path] = {}
        self.problems: list[str] = []
        self._sizes: dict[int, int] = {}
        self._ended: set[int] = set()

    def take(self, worker: int, alias: str, piece: TracePiece) -> str:
        """Keep the next piece of a worker's trace; what no honest worker would send, as "that ...".

        alias: of its node, in our own nodes file.
        """
        try:
            data = base64.b64decode(piece.data, validate=True)
        except (binascii.Error, ValueError):
            return "that is no base64"
        if worker in self._ended:
            return "after its last piece"
        size = self._sizes[worker] = self._sizes.get(worker, 0) + len(data)
        if size > MOST_TRACE_BYTES or len(data) > TRACE_PIECE_BYTES:
            return f"of more than {MOST_TRACE_BYTES >> 20} MiB"
        if len(data) < TRACE_PIECE_BYTES and not piece.last:
            return "that is cut short"
        if piece.last:
            self._ended.add(worker)
        if piece.problem:
            self._note(f"worker {worker}: there is no trace of it: {printable(piece.problem, 300)}")
        else:
            self._keep(worker, f"{safe_name(alias)}-worker-{worker}.xplane.pb", data, piece.last)
        return ""

    def end(self) -> None:
        """Remove what has begun to come and is not whole."""
        for beside in self.folder.glob(".*.part"):
            with suppress(OSError):
                beside.unlink()

    def _keep(self, worker: int, name: str, data: bytes, is_last: bool) -> None:
        beside = self.folder / f".{name}.part"
        try:
            with results_errors(beside):
                self.folder.mkdir(parents=True, exist_ok=True)
                with beside.open("ab") as file:
                    file.write(data)
                if is_last:
                    self.written[worker] = beside.replace(self.folder / name)
        except ResultsError as error:
            self._ended.add(worker)
            self._note(str(error))

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
