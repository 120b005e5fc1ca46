"""An agent that lies. It runs on a real host, in the place of the interpreter (`python=`).

It answers in the launcher's probes as the real one does, starts nothing, and says of its tasks, its
node and what is left there what no honest agent says: between the lies it makes all the steps, so
that the run itself is a good one.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

if "perftest.agent" not in sys.argv:  # what else the launcher wants of an interpreter
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # noqa: S606
sys.path.insert(0, "")  # the payload, in the current directory

from perftest import agent, facts, protocol
from perftest.protocol import Exited, Failed, Finished, FromTask, Log, Phase, Ready, StepTimes

NASTY = (
    "\x1b]0;owned\x07\x1b[2J\r=HYPERLINK(1) <script>&\x00'\""
    "`$(touch /tmp/pwned)` ../../\ud800\uffff"
)
ELSEWHERE = (
    *("../../pwned", "/tmp/pwned", "worker/../../pwned", "worker-0.log/../pwned", NASTY),
    *("ps", "worker", "", "." * 300),
)


# What `check` and `clean` are told: first something that was not asked for.
TOLD: dict[type, tuple[object, ...]] = {
    protocol.ClockQuery: (protocol.ClockReading(1e300, 1e11),),
    protocol.Inspect: (
        protocol.Cleaned(1, 1, (NASTY,)),
        protocol.Inspection(
            instruction_sets=(NASTY,) * 3,
            load=1e9,
            memory_available_bytes=1,
            swap_used_bytes=1 << 50,
            governor="powersave",
            governor_driver=NASTY,
            huge_pages=NASTY,
            open_files=1,
            noexec=True,
            proxies=(NASTY,) * 9,
            interfaces=(protocol.NetworkInterface(NASTY, (NASTY, "8.8.8.8"), 1, 0, False),),
            resolved=(protocol.ResolvedName(NASTY, (NASTY,), NASTY),),
            gpu_use=(protocol.GpuUse(NASTY, 1, 1, 1),),
        ),
    ),
    protocol.CountParameters: (protocol.ParameterCount(NASTY, (), NASTY),),
    protocol.FindLeftovers: (
        protocol.ErrandFailed(NASTY, NASTY),
        protocol.Leftovers(
            (
                protocol.Leftover(NASTY, NASTY, NASTY, -1, 1e300, None, NASTY, True),
                protocol.Leftover("directory", "/etc", "../..", None, -1.0, -5, "/etc", False),
            ),
            2**62,
            (NASTY,) * 50,
        ),
    ),
    protocol.Clean: (protocol.Cleaned(2**62, -1, (NASTY,) * 50),),
}


class Liar(agent.Agent):
    """See above."""

    def _obey(self, message: object) -> None:
        if isinstance(message, protocol.Greet):
            true = facts.gather(message, self._directory, self._ports)
            versions = replace(true.versions, tensorflow="=2.21" + NASTY, keras="@x", python="+1")
            self._output.put(
                replace(
                    true,
                    host=NASTY,
                    user=NASTY,
                    directory="../../pwned" + NASTY,
                    executable=NASTY,
                    cpu_model="=cmd|' /C calc'!A0" + NASTY,
                    addresses=(NASTY, "../../pwned"),
                    network=true.network + NASTY,
                    versions=versions,
                )
            )
        elif isinstance(message, protocol.Start):
            self._lie(message)
        elif isinstance(message, protocol.Go):
            self._train(message.run_id)
        elif isinstance(message, protocol.Finish):
            self._logs(message.run_id)
        elif type(message) in TOLD:
            for lie in TOLD[type(message)]:
                self._output.put(lie)
        else:
            super()._obey(message)

    def _lie(self, start: protocol.Start) -> None:
        self.start = start
        mine = {(place.role, place.index) for place in start.places}
        for role in ELSEWHERE:
            for index in (0, 1, 7, -1, 2**62):
                if (role, index) in mine:
                    continue
                for what in (Failed(NASTY), Ready(), Phase(NASTY, 1e308), Finished(1, None, NASTY)):
                    self._output.put(FromTask(start.run_id, role, index, what))
                self._output.put(Exited(start.run_id, role, index, 1, None, (NASTY,) * 50))
                self._output.put(Log(start.run_id, role, index, NASTY * 9, -5))
        for place in start.places:
            for other in ("../../pwned", start.run_id + "x", NASTY):
                self._output.put(FromTask(other, place.role, place.index, Failed(NASTY)))
                self._output.put(Log(other, place.role, place.index, "of another run", 0))
            self._output.put(FromTask(start.run_id, place.role, place.index, Phase(NASTY, 1e308)))
        for index in self._workers():
            warmup = StepTimes(0, False, (0.5,), (1e6,), (1e308,), (1,))
            self._output.put(FromTask(start.run_id, "worker", index, warmup))
            self._output.put(FromTask(start.run_id, "worker", index, Ready()))

    def _workers(self) -> list[int]:
        return [place.index for place in self.start.places if place.role == "worker"]

    def _train(self, run_id: str) -> None:
        count = self.start.job.measured_steps
        for index in self._workers():
            steps = StepTimes(
                1, True, (0.5, 9e5) * (count // 2), (0.4,) * count, (-1e308,) * count, (2,) * count
            )
            self._output.put(FromTask(run_id, "worker", index, steps))
            self._output.put(FromTask(run_id, "worker", index, Finished(1, 1e308, NASTY)))

    def _logs(self, run_id: str) -> None:
        for role in ELSEWHERE:
            self._output.put(Log(run_id, role, 1 if 0 in self._workers() else 0, "not mine", 0))
        for place in self.start.places:
            self._output.put(Log(run_id, place.role, place.index, f"mine {NASTY}\n", 0))
        self._output.put(protocol.RunEnded(run_id, (NASTY,) * 100))


if __name__ == "__main__":
    agent.Agent = Liar  # type: ignore[misc]
    sys.exit(agent.main())
