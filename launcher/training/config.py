"""A training's JSON configuration -> what to train, on which data, how long. Opens nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from launcher.tasks import PARAMETER_SERVER_STRATEGY, SINGLE, Options
from launcher.training.keys import CONV_PARAMS, KEYS, ConfigError, read
from perftest.protocol import SYNTHETIC, Data, Optimizer, Training

# The threads that the older program gave TensorFlow: within an operation, between operations.
_THREADS = {"hsw": (16, 2), "knl": (33, 2)}
_DEVICES = {"hsw": "cpu", "knl": "cpu", "cpu": "cpu", "gpu": "gpu", "auto": "auto"}
# What only the network of the older program has.
_HEP_KEYS = (
    *("batch_norm", "scaling_improvements", "num_layers", "num_fc_units", "conv_params"),
    "input_shape",
)
_DATA_OF_MODEL = {"deepmnist": "mnist"}
# Besides the network of the older program; the others have no share to leave out.
WITH_DROPOUT = ("alexnet", "deepmnist")
_WITH_MOMENTUM = ("momentum", "rmsprop")


@dataclass(frozen=True)
class TrainConfig:
    """A configuration, checked. image_shape: (height, width, channels), or empty: the model's own.

    options: of a run; its batch size is still that of the configuration (see `for_workers`).
    batch_is_of_node: the batch is shared by the workers of a node, and not by all of them.
    test_batch_size, test_samples: of `evaluate`.  notes: what a reader of the file should know.
    """

    where: str
    options: Options
    batch_is_of_node: bool
    test_batch_size: int
    notes: tuple[str, ...]

    @property
    def training(self) -> Training:
        """What the tasks are told of epochs, validation and checkpoints."""
        training = self.options.training
        assert training is not None  # noqa: S101 - a configuration is of a training
        return training

    def for_workers(self, nodes: int, gpus_per_node: int) -> Options:
        """The options of a run on so many workers, with the batch size of each.

        Raises ConfigError for a batch that cannot be shared out evenly.
        """
        sharing = gpus_per_node if self.batch_is_of_node else nodes * gpus_per_node
        whole = self.options.batch_size
        if whole % sharing:
            lower = whole // sharing * sharing
            near = f"{lower} or {lower + sharing}" if lower else f"{sharing}"
            raise ConfigError(
                f"{self.where}: train_batch_size {whole} cannot be shared out evenly "
                f"to {sharing} workers{' of a node' if self.batch_is_of_node else ''}",
                near,
            )
        alone = nodes * gpus_per_node == 1 and self.options.parameter_servers is None
        return replace(
            self.options,
            gpus_per_node=gpus_per_node,
            batch_size=whole // sharing,
            strategy=SINGLE if alone else PARAMETER_SERVER_STRATEGY,
            backup_workers=self.options.backup_workers if not alone else 0,
            synchronous=self.options.synchronous or alone,
        )

    def with_training(self, **changes: Any) -> TrainConfig:
        """The same with other fields of `training`."""
        training = replace(self.training, **changes)
        return replace(self, options=replace(self.options, training=training))

    def with_data(self, **changes: Any) -> TrainConfig:
        """The same with other fields of `data`."""
        data = replace(self.options.data, **changes)
        return replace(self, options=replace(self.options, data=data))


def parse(content: str, where: str, given: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a configuration from its text; `where` is what messages call it.

    given: values from the command line, which go before those of the file.
    Raises ConfigError for what is wrong, with the key.
    """
    values, named = read(content, where, given or {})
    notes: list[str] = []
    _refuse(values, where)
    _check_model(values, named, where)
    model, image_shape, model_options = _network(values, where, notes)
    optimizer = values["optimizer"].lower()
    if "momentum" in named and optimizer not in _WITH_MOMENTUM:
        notes.append(f"momentum has no part in {values['optimizer']}")
    if "num_fc_units" in named and values["scaling_improvements"]:
        notes.append("num_fc_units has no part with scaling_improvements true")
    arch = values["arch"].lower()
    intra, inter = _THREADS.get(arch, (0, 0))
    batch = values["train_batch_size"]
    test_batch = values["test_batch_size"] or batch
    options = Options(
        model=model,
        batch_size=batch,
        synchronous=values["mode"].lower() == "sync",
        backup_workers=values["num_hot_spares"],
        device=_DEVICES[arch],
        learning_rate=float(values["learning_rate"]),
        warmup_steps=0,
        measured_steps=0,
        model_options=model_options,
        image_shape=image_shape,
        data=_data(values, model, where),
        optimizer=Optimizer(optimizer, float(values["momentum"]), float(values["weight_decay"])),
        training=_training(values),
        intra_op_threads=intra,
        inter_op_threads=inter,
    )
    return TrainConfig(where, options, values["batch_size_per_node"], test_batch, tuple(notes))


def _refuse(values: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for what is right in form and not to be had here."""
    if values["fully_sync_fraction"]:
        raise ConfigError(
            f"{where}: fully_sync_fraction {values['fully_sync_fraction']}: groups of workers that "
            "are synchronous within and asynchronous among themselves are not built",
            'fully_sync_fraction 0 and mode "sync" or "async"',
        )
    if not values["time"]:
        raise ConfigError(f"{where}: time false: speed is always measured", "leave time out")
    if values["mode"].lower() == "async" and values["num_hot_spares"]:
        raise ConfigError(
            f"{where}: num_hot_spares has no meaning with mode async", "num_hot_spares 0"
        )


def _check_model(values: Mapping[str, Any], named: set[str], where: str) -> None:
    model = values["model"]
    if _is_hep(model):
        if values["input_shape"] is None:
            side = 224 if model == "hep_cnn_224" else 64
            raise ConfigError(
                f"{where}: the key input_shape is missing", f'"input_shape": [3, {side}, {side}]'
            )
        return
    for key in _HEP_KEYS if model in WITH_DROPOUT else (*_HEP_KEYS, "dropout_p"):
        if key in named:
            raise ConfigError(
                f"{where}: {key} has no meaning with the model {model}", f"leave out {key}"
            )


def _is_hep(model: str) -> bool:
    """Whether a value of the key `model` means the network of the older program."""
    return not model or model.startswith("hep_cnn")


def _network(
    values: Mapping[str, Any], where: str, notes: list[str]
) -> tuple[str, tuple[int, ...], dict[str, float | int | bool | str]]:
    """The model's name, its image shape where it is not the model's own, and its options."""
    model = values["model"]
    if not _is_hep(model):
        return model, (), {"dropout": float(values["dropout_p"])} if model in WITH_DROPOUT else {}
    height, width, channels = _channels_last(values["input_shape"])
    large = (height, width) == (224, 224)
    name = "hep_cnn_224" if large else "hep_cnn_64"
    if model not in ("", name):
        raise ConfigError(
            f"{where}: the model {model} is not that of images of {height} × {width}, {name}",
            "leave out model, or another input_shape",
        )
    conv = values["conv_params"]
    if conv["data_format"].upper() == "NCHW":
        notes.append("data_format NCHW is that of the files; it is computed in NHWC")
    layers = values["num_layers"] or (4 if large else 3)
    pooled = values["scaling_improvements"]
    _check_size(min(height, width), layers, conv, where)
    return (
        name,
        (height, width, channels),
        {
            "num_layers": layers,
            "fc_units": 0 if pooled else values["num_fc_units"],
            "filters": conv["num_filters"],
            "dropout": float(values["dropout_p"]),
            "batch_norm": values["batch_norm"],
            "kernel_size": conv["filter_size"],
            "padding": conv["padding"].lower(),
            "initializer": {"he": "he_normal", "glorot": "glorot_uniform"}[
                conv["initializer"].lower()
            ],
        },
    )


def _channels_last(shape: list[int]) -> tuple[int, int, int]:
    first, second, third = shape
    return (second, third, first) if first <= 4 else (first, second, third)


def _check_size(side: int, layers: int, conv: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError where nothing is left of the image after the last unit."""
    for layer in range(1, layers + 1):
        side -= conv["filter_size"] - 1 if conv["padding"].lower() == "valid" else 0
        side //= 2
        if side < 1:
            raise ConfigError(
                f"{where}: num_layers {layers} leaves nothing of the image after layer {layer}",
                f"num_layers {layer - 1}" if layer > 1 else "a larger input_shape",
            )


def _data(values: Mapping[str, Any], model: str, where: str) -> Data:
    kind = values["data"].lower() or _DATA_OF_MODEL.get(model, "hdf5")
    if not values["inputpath"] and kind != SYNTHETIC:
        raise ConfigError(
            f"{where}: the key inputpath is missing", "the folder of the data, or --input DIR"
        )
    return Data(
        kind=kind,
        path=values["inputpath"] if kind != SYNTHETIC else "",
        train_samples=values["trainsamples"],
        validation_samples=_samples(values, "validation"),
        test_samples=_samples(values, "test"),
    )


def _samples(values: Mapping[str, Any], split: str) -> int:
    """How many samples of a split are used; 0 for all."""
    limits = [values[f"{split}_samples"]]
    steps = values[f"{split}_max_steps"]
    if steps > 0:
        limits.append(steps * (values[f"{split}_batch_size"] or values["train_batch_size"]))
    return min((limit for limit in limits if limit), default=0)


def _training(values: Mapping[str, Any]) -> Training:
    return Training(
        epochs=values["num_epochs"],
        display_interval=values["display_interval"],
        save_interval=values["save_interval"],
        validation_interval=values["validation_interval"],
        evaluation_batch_size=values["validation_batch_size"] or values["train_batch_size"],
        output=values["outputpath"],
        summaries=values["create_summary"],
        restart=values["restart"],
        evaluate=False,
        checkpoint="",
    )


__all__ = ["CONV_PARAMS", "KEYS", "ConfigError", "TrainConfig", "parse"]
