"""The agent's probes, loaded when the first is asked for: no greeting has to wait for them.

Needs the standard library alone.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import TYPE_CHECKING

from perftest.protocol import EndProbe, Listen, Probe

if TYPE_CHECKING:
    from perftest.probe import Probes


class ProbesLater:
    """As perftest.probe.Probes, which is made with the same arguments when it is needed."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        put: Callable[[object], None],
        wake: Callable[[], object],
        clock: Callable[[], float],
    ) -> None:
        self._arguments = (selector, put, wake, clock)
        self._probes: Probes | None = None

    def obey(self, message: Listen | Probe | EndProbe) -> None:
        """Do what the launcher asks."""
        if self._probes is None:
            from perftest.probe import Probes

            self._probes = Probes(*self._arguments)
        self._probes.obey(message)

    def look(self) -> None:
        """What has to be done now and then."""
        if self._probes is not None:
            self._probes.look()

    def close(self) -> None:
        """Let go of everything."""
        if self._probes is not None:
            self._probes.close()
