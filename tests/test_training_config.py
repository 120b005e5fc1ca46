"""The JSON configuration of a training: every key works or is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.training.config import KEYS, ConfigError, TrainConfig, parse

CONFIGS = Path(__file__).parent.parent / "configs"
LEAST: dict[str, Any] = {
    "input_shape": [3, 64, 64],
    "inputpath": "/data",
    "outputpath": "/out",
    "learning_rate": 1e-3,
    "num_epochs": 3,
    "train_batch_size": 64,
}


def read(**changes: Any) -> TrainConfig:
    """The least configuration with some keys changed; None leaves a key out."""
    found = {**LEAST, **changes}
    return parse(json.dumps({k: v for k, v in found.items() if v is not None}), "c.json")


def refused(text: str | None = None, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(**changes) if text is None else parse(text, "c.json")
    assert str(caught.value).startswith("c.json")
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.name)
def test_a_shipped_configuration_can_be_read(path: Path) -> None:
    config = parse(path.read_text(), path.name)
    assert config.options.training is not None
    assert config.notes == ()


def test_a_shape_is_understood_in_either_order() -> None:
    assert read(input_shape=[3, 32, 48]).options.image_shape == (32, 48, 3)
    assert read(input_shape=[32, 48, 3]).options.image_shape == (32, 48, 3)
    assert "channels" in refused(input_shape=[64, 64, 64])


def test_the_network_follows_the_shape_and_the_keys() -> None:
    small = read(num_fc_units=128, dropout_p=0.2, batch_norm=True, num_layers=2).options
    assert small.model == "hep_cnn_64"
    assert small.model_options["fc_units"] == 128
    assert small.model_options["dropout"] == 0.2
    assert small.model_options["batch_norm"] is True
    assert small.model_options["num_layers"] == 2
    large = read(input_shape=[3, 224, 224], scaling_improvements=True).options
    assert (large.model, large.model_options["num_layers"]) == ("hep_cnn_224", 4)
    assert large.model_options["fc_units"] == 0


def test_convolutions_are_as_conv_params_say() -> None:
    params = {"num_filters": 16, "filter_size": 5, "padding": "VALID", "initializer": "GLOROT"}
    options = read(conv_params=params, num_layers=2).options.model_options
    assert (options["filters"], options["kernel_size"], options["padding"]) == (16, 5, "valid")
    assert options["initializer"] == "glorot_uniform"
    assert "conv_params.activation" in refused(conv_params={"activation": "tanh"})
    assert "num_filters" in refused(conv_params={"num_filter": 3})


def test_mode_spares_and_optimizer_become_those_of_a_run() -> None:
    sync = read(num_hot_spares=1, optimizer="MOMENTUM", momentum=0.8, weight_decay=0.01)
    options = sync.for_workers(nodes=2, gpus_per_node=2)
    assert options.synchronous
    assert options.backup_workers == 1
    assert (options.optimizer.name, options.optimizer.momentum) == ("momentum", 0.8)
    assert options.optimizer.weight_decay == 0.01
    assert not read(mode="async").for_workers(2, 1).synchronous


def test_a_batch_is_shared_by_all_workers_or_by_those_of_a_node() -> None:
    assert read(train_batch_size=64).for_workers(2, 2).batch_size == 16
    of_node = read(train_batch_size=64, batch_size_per_node=True)
    assert of_node.for_workers(2, 2).batch_size == 32
    with pytest.raises(ConfigError, match="63 or 66"):
        read(train_batch_size=64).for_workers(3, 1)


def test_one_worker_alone_needs_no_parameter_server() -> None:
    assert read().for_workers(1, 1).strategy == "single"
    assert read().for_workers(2, 1).strategy == "parameter_server"


def test_samples_are_limited_by_their_number_or_by_steps() -> None:
    data = read(trainsamples=1000, validation_max_steps=3, validation_batch_size=10).options.data
    assert (data.train_samples, data.validation_samples, data.test_samples) == (1000, 30, 0)
    assert read(test_max_steps=-1).options.data.test_samples == 0


def test_arch_decides_on_device_and_threads() -> None:
    assert read(arch="gpu").options.device == "gpu"
    knl = read(arch="knl").options
    assert (knl.device, knl.intra_op_threads, knl.inter_op_threads) == ("cpu", 33, 2)


def test_what_is_not_built_is_refused_with_the_reason() -> None:
    assert "groups of workers" in refused(fully_sync_fraction=0.5)
    assert "always measured" in refused(time=False)
    assert "async" in refused(mode="async", num_hot_spares=1)
    assert "no meaning with the model deepmnist" in refused(model="deepmnist", num_layers=2)


def test_an_unknown_key_is_told_with_the_nearest_known_one() -> None:
    message = refused(learning_rat=1)
    assert "'learning_rat'" in message
    assert message.endswith("Try: learning_rate")


def test_a_key_that_is_missing_or_twice_there_is_named() -> None:
    assert "num_epochs is missing" in refused(num_epochs=None)
    assert "inputpath is missing" in refused(inputpath=None)
    assert "twice" in refused('{"mode": "sync", "mode": "async"}')


def test_a_place_that_is_no_json_is_named_by_line_and_column() -> None:
    assert "line 2, column 8" in refused('{\n"mode" 1}')
    assert "no JSON object" in refused("[1]")
    assert "NaN is not a number" in refused('{"learning_rate": NaN}')


def test_layers_that_leave_nothing_of_the_image_are_refused() -> None:
    assert "num_layers 7 leaves nothing" in refused(num_layers=7)


def test_what_has_no_part_is_noted() -> None:
    assert "momentum" in read(momentum=0.9, optimizer="ADAM").notes[0]
    assert "NCHW" in read(conv_params={"data_format": "NCHW"}).notes[0]


def test_the_command_line_goes_before_the_file() -> None:
    config = parse(json.dumps(LEAST), "c.json", {"num_epochs": 9, "restart": True})
    assert config.training.epochs == 9
    assert config.training.restart


def said_of(text: str) -> str:
    """The message about a configuration, or nothing where it is a good one."""
    try:
        parse(text, "c.json")
    except ConfigError as error:
        return str(error)
    return ""


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(sorted(KEYS)), ANY_JSON, max_size=4))
def test_no_value_gives_anything_but_a_configuration_or_its_error(changes: dict[str, Any]) -> None:
    assert said_of(json.dumps({**LEAST, **changes})).isprintable()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=60))
def test_no_text_gives_anything_but_a_configuration_or_its_error(text: str) -> None:
    assert said_of(text).isprintable()
