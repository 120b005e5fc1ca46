"""Where the records of a TFRecord file lie, and reading some of them.

Such a file has no list of its records. Each is its length (8 bytes, the lowest first), a checksum
of these, its data, and a checksum of those: CRC-32C, masked as TensorFlow's crc32c.h describes.
The checksums of the lengths are looked at here; those of the data by TensorFlow's own reader, which
uses the processor's instruction for it.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perftest.data.errors import DataError

_LENGTH, _HEADER, _FOOTER = 8, 12, 4
_POLYNOMIAL, _ALL_ONES = 0x82F63B78, 0xFFFFFFFF
_MASK = 0xA282EAD8
_READ_BYTES = 1 << 18
_COPY = "copying it again"


@dataclass(frozen=True)
class RecordFile:
    """One file. starts: where each record begins, and the end of the file, (samples + 1,)."""

    path: Path
    starts: np.ndarray

    @property
    def samples(self) -> int:
        """Records of the file that are used."""
        return len(self.starts) - 1

    def read(self, start: int, stop: int) -> list[bytes]:
        """Some records in a row. Raises DataError, for a record that is damaged, too."""
        import tensorflow as tf

        first, last = int(self.starts[start]), int(self.starts[stop])
        try:
            with self.path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size < last:
                    raise DataError(f"{self.path}: the file ends before its record {stop}", _COPY)
                # All of it at once, whatever the system would read ahead of small pieces.
                os.posix_fadvise(file.fileno(), first, last - first, os.POSIX_FADV_WILLNEED)
            return self._checked(start, stop)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        except tf.errors.OpError as error:
            raise self._explained(start, stop) from error

    def _checked(self, start: int, stop: int) -> list[bytes]:
        """Some records in a row, as TensorFlow reads them. Raises its OpError for a wrong checksum,
        and DataError where the records are others than before.
        """
        import tensorflow as tf

        count = stop - start
        with tf.device("/device:CPU:0"):
            reader = tf.raw_ops.TFRecordDatasetV2(
                filenames=[os.fsencode(self.path)],
                compression_type="",
                buffer_size=_READ_BYTES,
                byte_offsets=[int(self.starts[start])],
            )
            found = tf.data.experimental.from_variant(reader, tf.TensorSpec((), tf.string))
            read = found.take(count).batch(count).get_single_element()
        records: list[bytes] = read.numpy().tolist()
        lengths = np.diff(self.starts[start : stop + 1]) - _HEADER - _FOOTER
        if [len(record) for record in records] != lengths.tolist():
            raise DataError(f"{self.path}: changed since its records were counted", "running again")
        return records

    def _explained(self, start: int, stop: int) -> DataError:
        """Which of some records cannot be read."""
        import tensorflow as tf

        for number in range(start, stop):
            try:
                self._checked(number, number + 1)
            except tf.errors.DataLossError:
                what = f"record {number} is damaged: it does not fit its checksum"
                return DataError(f"{self.path}: {what}", _COPY)
            except tf.errors.OpError as error:
                return DataError(f"{self.path}: record {number} cannot be read: {error.message}")
        return DataError(f"{self.path}: changed since its records were counted", "running again")


def index(path: Path) -> RecordFile:
    """Where the records of a file begin. Raises DataError for one that is cut off or damaged, or no
    TFRecord file.
    """
    starts = [0]
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while starts[-1] < size:
                header = os.pread(file.fileno(), _HEADER, starts[-1])
                length = size
                if len(header) == _HEADER:
                    length, checksum = struct.unpack("<QI", header)
                    if checksum != _checksum(header[:_LENGTH]):
                        raise DataError(
                            f"{path}: damaged in the length of its record {len(starts) - 1}, or no "
                            "TFRecord file",
                            _COPY,
                        )
                starts.append(starts[-1] + _HEADER + length + _FOOTER)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if starts[-1] != size:
        number = len(starts) - 2
        raise DataError(f"{path}: cut off in its record {number}, or no TFRecord file")
    if not size:
        raise DataError(f"{path}: no samples")
    return RecordFile(path, np.array(starts))


def _table() -> list[int]:
    """What each byte does to a CRC-32C."""
    found = list(range(256))
    for _ in range(8):
        found = [(value >> 1) ^ (_POLYNOMIAL if value & 1 else 0) for value in found]
    return found


_TABLE = _table()


def _checksum(data: bytes) -> int:
    """The masked CRC-32C of a few bytes; many would take long."""
    value = _ALL_ONES
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    value ^= _ALL_ONES
    return ((value >> 15 | value << 17) + _MASK) & _ALL_ONES
