"""What ends an agent's wait from elsewhere: a child's end, a thread. Standard library alone."""

from __future__ import annotations

import contextlib
import os
import signal


class Bell:
    """A pipe to wait for. There is one in a process: the end of a child rings it."""

    def __init__(self) -> None:
        self.descriptor, self._other_end = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._other_end, False)
        # Without a handler the signal would be ignored, and its number not be written to the pipe.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._other_end, warn_on_full_buffer=False)

    def ring(self) -> None:
        """End the wait; from any thread."""
        with contextlib.suppress(OSError):  # a full pipe ends it just as well
            os.write(self._other_end, b"\0")

    def silence(self) -> None:
        """Take note of it."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)
