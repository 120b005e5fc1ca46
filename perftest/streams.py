"""Lines in and messages out of descriptors that never make their reader or writer wait.

Needs the standard library alone.
"""

from __future__ import annotations

import errno
import os

from perftest import protocol
from perftest.protocol import MessageError


class Lines:
    """Complete lines out of a non-blocking descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self.empty = False
        self._partial = b""
        os.set_blocking(descriptor, False)

    def read(self) -> list[bytes]:
        """Whatever whole lines have come. Sets `ended` at end of file, `empty` until more comes.

        Raises MessageError when a line grows past the limit.
        """
        self.empty = False
        try:
            data = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            self.empty = True
            return []
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ECONNRESET):
                raise
            data = b""
        if not data:
            self.ended = True
            return []
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > protocol.MAX_LINE_BYTES:
            raise MessageError(f"a line of more than {protocol.MAX_LINE_BYTES >> 20} MiB")
        return [line for line in lines if line.strip()]


class Outgoing:
    """Messages to the launcher; never waits for it, so that a stuck launcher is still noticed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.broken = False
        self._unsent = bytearray()
        os.set_blocking(descriptor, False)

    def __len__(self) -> int:
        return len(self._unsent)

    def put(self, message: object) -> None:
        """Queue a message, and send what can be sent at once."""
        self._unsent += protocol.encode(message)
        self.flush()

    def flush(self) -> None:
        """Send as much as the launcher takes now."""
        while self._unsent and not self.broken:
            try:
                sent = os.write(self.descriptor, self._unsent[: 1 << 18])
            except BlockingIOError:
                return
            except OSError:
                self.broken = True
                return
            del self._unsent[:sent]
