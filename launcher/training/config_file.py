"""A training's configuration as it stands in a file, with absolute folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.data_options import absolute
from launcher.training.config import ConfigError, TrainConfig, parse

_MOST_CONFIG_BYTES = 1 << 20


def read_config(
    path: Path | str,
    given: Mapping[str, Any] | None = None,
    stage: str = "",
    is_local: bool = True,
) -> TrainConfig:
    """The configuration in a file, with what is `given` instead of its values.

    stage: the directory of each node that data are copied to first.  is_local: whether the nodes
    are this machine, where relative folders are so to the one that we are in. Raises ConfigError.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", "--config with the path of a file"
        ) from error
    if len(content) > _MOST_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than any configuration", "configs/hep_cnn_64.json")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text", "configs/hep_cnn_64.json") from error
    config = parse(text, str(path), dict(given or {}))
    if stage:
        config = config.with_data(stage=stage)
    return _located(config, is_local)


def _located(config: TrainConfig, is_local: bool) -> TrainConfig:
    """With absolute folders: on this machine, relative ones are so to where the command runs."""
    data, training = config.options.data, config.training
    folders = {"inputpath": data.path, "outputpath": training.output, "--stage": data.stage}
    found = {}
    for name, folder in folders.items():
        if folder and is_local:
            found[name] = absolute(name, folder)
        elif folder and not folder.startswith(("/", "~/")):
            raise ConfigError(
                f"{config.where}: {name} {folder!a} is relative, and a node knows no folder that "
                "it could be relative to",
                "a path that begins with / or ~/",
            )
        else:
            found[name] = folder
    config = config.with_data(path=found["inputpath"], stage=found["--stage"])
    return config.with_training(output=found["outputpath"])
