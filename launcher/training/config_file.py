"""A training's configuration as it stands in a file, with absolute folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.data_options import absolute
from launcher.training.config import ConfigError, TrainConfig, parse
from launcher.training.keys import OPTIONS
from perftest.protocol import SYNTHETIC

_MOST_CONFIG_BYTES = 1 << 20


def read_config(
    path: Path | str,
    given: Mapping[str, Any] | None = None,
    stage: str = "",
    is_local: bool = True,
) -> TrainConfig:
    """The configuration in a file, with what is `given` by the command line instead of its values.

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
    given = dict(given or {})
    config = parse(text, str(path), given)
    if config.options.data.kind == SYNTHETIC:
        _refuse_folders_of_data(config, given, stage)
    if stage:
        config = config.with_data(stage=stage)
    return _located(config, given, is_local)


def _refuse_folders_of_data(config: TrainConfig, given: Mapping[str, Any], stage: str) -> None:
    """Raises ConfigError for options that say where synthetic images would lie."""
    asked = "--dummy-data" if "data" in given else f"data synthetic of {config.where}"
    for option, is_given in (("--input", "inputpath" in given), ("--stage", bool(stage))):
        if is_given:
            raise ConfigError(
                f"{option} has no meaning with {asked}: synthetic images are on no disk",
                "leave out one of the two",
            )


def _located(config: TrainConfig, given: Mapping[str, Any], is_local: bool) -> TrainConfig:
    """With absolute folders: on this machine, relative ones are so to where the command runs."""
    data, training = config.options.data, config.training
    folders = {"inputpath": data.path, "outputpath": training.output, "--stage": data.stage}
    # What messages call them: who typed an option has no use for the key that it goes before.
    names = {key: f"{config.where}: {key}" for key in OPTIONS}
    names.update({key: option for key, option in OPTIONS.items() if key in given})
    if not is_local:
        _refuse_relative(folders, names)
    found = {
        key: absolute(names.get(key, key), folder) if folder and is_local else folder
        for key, folder in folders.items()
    }
    config = config.with_data(path=found["inputpath"], stage=found["--stage"])
    return config.with_training(output=found["outputpath"])


def _refuse_relative(folders: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Raises ConfigError for folders of nodes that could be anywhere: the mend has all of them."""
    relative = {
        key: folder
        for key, folder in folders.items()
        if folder and not folder.startswith(("/", "~/"))
    }
    if relative:
        key, folder = next(iter(relative.items()))
        options = " ".join(f"{OPTIONS.get(key, key)} DIR" for key in relative)
        raise ConfigError(
            f"{names.get(key, key)} {folder[:80]!a} is relative, and a node knows no folder that "
            "it could be relative to",
            f"{options}, each beginning with / or ~/",
        )
