"""TensorBoard's summaries, written without TensorBoard being installed."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

_Metadata = tf.compat.v1.SummaryMetadata


class Summaries:
    """The events of one training, in `<output>/summaries`."""

    def __init__(self, output: str) -> None:
        folder = Path(output).expanduser() / "summaries"
        with tf.init_scope():
            self._writer = tf.summary.create_file_writer(str(folder))
        scalars = _Metadata.PluginData(plugin_name="scalars")
        self._metadata = _Metadata(plugin_data=scalars, data_class=1)  # DATA_CLASS_SCALAR

    def write(self, step: int, values: dict[str, float | None]) -> None:
        """Write the values that there are. step: steps of the training so far."""
        with tf.device("/device:CPU:0"), self._writer.as_default():
            for tag, value in values.items():
                if value is not None:
                    number = tf.constant(value, tf.float32)
                    tf.summary.write(tag, number, step=step, metadata=self._metadata)
        self._writer.flush()
