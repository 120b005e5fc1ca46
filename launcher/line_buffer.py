"""Lines out of a stream of pieces of any size, at a cost that grows with the bytes alone."""

from __future__ import annotations

from collections.abc import Iterator


class LineBuffer:
    """Holds the line that has begun."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._looked_at = 0

    def __len__(self) -> int:
        """Bytes of the line that has begun, or, before `lines` is read to its end, of all."""
        return len(self._data)

    def add(self, data: bytes) -> None:
        """More of the stream."""
        self._data += data

    def skip_past(self, marker: bytes) -> bool:
        """Drop all up to the end of `marker`, and say whether it was there."""
        found = self._data.find(marker, max(0, self._looked_at - len(marker)))
        if found < 0:
            self._looked_at = len(self._data)
            return False
        del self._data[: found + len(marker)]
        self._looked_at = 0
        return True

    def lines(self) -> Iterator[bytes]:
        """The lines that are whole, without their ends. To be read to the end."""
        start = 0
        while (end := self._data.find(b"\n", max(start, self._looked_at))) >= 0:
            yield bytes(self._data[start:end])
            start = end + 1
        del self._data[:start]
        self._looked_at = len(self._data)
