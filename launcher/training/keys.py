"""The keys of a training's JSON configuration: what each may hold. Opens nothing.

The names are those of the older program (hep_cnn_benchmark, the network of arXiv:1708.05256), so
that its files go on working; `model` and `data` are ours.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.errors import UsageError

Check = Callable[[Any], str]
"""Gives what is wrong with a value, as "must be ...", or nothing."""


class ConfigError(UsageError):
    """A training's configuration cannot be used as it is: names file and key."""


@dataclass(frozen=True)
class Key:
    """One key. default: what it stands for when left out; `...` for one that must be there."""

    check: Check
    default: Any = ...


def whole(least: int = 1) -> Check:
    """A whole number from `least` on."""

    def check(value: Any) -> str:
        is_whole = type(value) is int and least <= value < 1 << 31
        return "" if is_whole else f"must be a whole number, {least} or more"

    return check


def number(least: float, below: float = math.inf, above: bool = False) -> Check:
    """A number in [least, below), or in (least, below) where `above` says so."""

    def check(value: Any) -> str:
        fits = type(value) in (int, float) and math.isfinite(value) and least <= value < below
        if fits and not (above and value == least):
            return ""
        bound = f" and less than {below:g}" if below != math.inf else ""
        return f"must be a number {'more than' if above else 'of at least'} {least:g}{bound}"

    return check


def truth(value: Any) -> str:
    """true or false."""
    return "" if type(value) is bool else "must be true or false"


def text(value: Any) -> str:
    """A text of printable characters."""
    fits = type(value) is str and value and value.isprintable() and len(value) < 4096
    return "" if fits else "must be a text of printable characters"


def one_of(*names: str) -> Check:
    """One of some words, in capitals or not."""

    def check(value: Any) -> str:
        fits = type(value) is str and value.lower() in names
        return "" if fits else f"must be one of {', '.join(names)}"

    return check


def shape(value: Any) -> str:
    """[channels, height, width] or [height, width, channels], told apart by the small number."""
    is_list = type(value) is list and len(value) == 3
    if not is_list or not all(type(size) is int and 0 < size < 1 << 16 for size in value):
        return "must be three whole numbers, as [3, 64, 64] or [64, 64, 3]"
    if (value[0] <= 4) == (value[2] <= 4):
        return "must have its channels, 4 at most, first or last, as [3, 64, 64] or [64, 64, 3]"
    return ""


def table(value: Any) -> str:
    """An object, whose keys are looked at for themselves."""
    return "" if type(value) is dict else "must be an object, { ... }"


CONV_PARAMS: dict[str, Key] = {
    # Data lie as N×3×H×W in the files; what a processor computes fastest in is NHWC, and where
    # cuDNN prefers another layout, TensorFlow's optimiser puts it in by itself.
    "data_format": Key(one_of("nchw", "nhwc"), "NHWC"),
    "num_filters": Key(whole(), 128),
    "filter_size": Key(whole(), 3),
    "padding": Key(one_of("same", "valid"), "SAME"),
    "activation": Key(one_of("relu"), "ReLU"),
    "initializer": Key(one_of("he", "glorot"), "HE"),
}

KEYS: dict[str, Key] = {
    "model": Key(text, ""),
    "data": Key(one_of("hdf5", "mnist", "tfrecord", "synthetic"), ""),
    "input_shape": Key(shape, None),
    "inputpath": Key(text, ""),
    "outputpath": Key(text),
    "arch": Key(one_of("auto", "cpu", "gpu", "hsw", "knl"), "auto"),
    "mode": Key(one_of("sync", "async"), "sync"),
    "num_hot_spares": Key(whole(0), 0),
    "fully_sync_fraction": Key(number(0, 1.0000001), 0.0),
    "learning_rate": Key(number(0, above=True)),
    "dropout_p": Key(number(0, 1), 0.5),
    "optimizer": Key(one_of("sgd", "momentum", "adam", "rmsprop", "adagrad", "adadelta"), "ADAM"),
    "weight_decay": Key(number(0), 0.0),
    "momentum": Key(number(0, 1), 0.9),
    "num_epochs": Key(whole()),
    "train_batch_size": Key(whole()),
    "batch_size_per_node": Key(truth, False),
    "batch_norm": Key(truth, False),
    "scaling_improvements": Key(truth, False),
    "num_layers": Key(whole(), None),
    "num_fc_units": Key(whole(), 512),
    "conv_params": Key(table, None),
    "trainsamples": Key(whole(0), 0),
    "validation_samples": Key(whole(0), 0),
    "validation_batch_size": Key(whole(), None),
    "validation_interval": Key(whole(0), 0),
    "validation_max_steps": Key(whole(-1), -1),
    "test_samples": Key(whole(0), 0),
    "test_batch_size": Key(whole(), None),
    "test_max_steps": Key(whole(-1), -1),
    "display_interval": Key(whole(), 10),
    "save_interval": Key(whole(), 1),
    "create_summary": Key(truth, True),
    "time": Key(truth, True),
    "restart": Key(truth, False),
}

# The options of the command that go before a key, where they take a value of one's own.
OPTIONS = {"inputpath": "--input", "outputpath": "--output", "num_epochs": "--epochs"}

# What the older program had for its optimizer KFAC alone.
_KFAC = "kfac"
_KFAC_KEYS = ("cov_ema_decay", "damping", "kfac_inv_update_frequency")


def read(content: str, where: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Every key of a configuration with its value, and those that were named in it.

    What is left out has its default; `given`, from the command line, goes before what the
    configuration says. Raises ConfigError, with file and key (or with the option), for what is no
    JSON object, for a key that is unknown, missing or twice there, and for a value that the key
    cannot have.
    """
    try:
        found = json.loads(content, object_pairs_hook=_object, parse_constant=_constant)
    except _Refused as error:
        raise ConfigError(f"{where}: {error}", error.mend) from error
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{where}: no JSON in line {error.lineno}, column {error.colno}: {error.msg}",
            "mend that line (no comments, no comma before a closing bracket)",
        ) from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: no JSON that can be read", "a shallow object") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{where} holds no JSON object", 'begin it with { and keys in ""')
    _refuse_kfac(found, where)
    for name, option in OPTIONS.items():
        if name in given and (wrong := KEYS[name].check(given[name])):
            raise ConfigError(f"{option} {wrong}, and not {ascii(given[name])[:60]}")
    values = _checked({**found, **given}, KEYS, where, "")
    values["conv_params"] = _checked(
        values["conv_params"] or {}, CONV_PARAMS, where, "conv_params."
    )
    return values, {*found, *given}


def _refuse_kfac(found: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for what is of KFAC alone; a key's nearest neighbour would mislead."""
    asked = [f"the key {name}" for name in _KFAC_KEYS if name in found]
    optimizer = found.get("optimizer")
    if isinstance(optimizer, str) and optimizer.lower() == _KFAC:
        asked.insert(0, f"optimizer {optimizer}")
    if asked:
        raise ConfigError(
            f"{where}: {', '.join(asked)}: the optimizer KFAC of the older program is not built",
            '"optimizer": "ADAM", with a learning_rate for it and without the keys of KFAC',
        )


class _Refused(ValueError):
    """Something that JSON's reader allows and a configuration must not have."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"the key {key[:40]!a} is there twice", "leave out one of the two")
        found[key] = value
    return found


def _constant(name: str) -> None:
    raise _Refused(f"{name} is not a number that JSON has", "a number in digits")


def _checked(
    found: Mapping[str, Any], keys: Mapping[str, Key], where: str, prefix: str
) -> dict[str, Any]:
    for name, value in found.items():
        if name not in keys:
            raise ConfigError(f"{where}: unknown key {prefix + name[:60]!a}", _nearest(name, keys))
        if wrong := keys[name].check(value):
            shown = ascii(value)[:60]
            raise ConfigError(f"{where}: {prefix}{name} {wrong}, and not {shown}")
    missing = [name for name, key in keys.items() if key.default is ... and name not in found]
    if missing:
        raise ConfigError(
            f"{where}: the key {prefix}{missing[0]} is missing",
            "see configs/ for whole configurations",
        )
    return {name: found.get(name, key.default) for name, key in keys.items()}


def _nearest(name: str, keys: Mapping[str, Key]) -> str:
    near = difflib.get_close_matches(name.lower(), list(keys), n=1, cutoff=0.5)
    return near[0] if near else f"one of {', '.join(keys)}"
