"""The JSON configuration of a training: every key works or is refused with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from launcher.training.config import KEYS, WITH_DROPOUT, ConfigError, TrainConfig, parse
from launcher.training.config_file import read_config
from perftest.protocol import Data

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
    assert config.training.output == f"trained/{path.stem}", "no other one's checkpoints are there"


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
    assert read(validation_max_steps=0).options.data.validation_samples == 0, "all, as with -1"


TRAINING, DATA, OPTIONS = "training", "options.data", "options"


@pytest.mark.parametrize(
    ("key", "value", "field", "becomes"),
    [
        ("learning_rate", 0.25, (OPTIONS, "learning_rate"), 0.25),
        ("train_batch_size", 96, (OPTIONS, "batch_size"), 96),
        ("inputpath", "/events", (DATA, "path"), "/events"),
        ("data", "tfrecord", (DATA, "kind"), "tfrecord"),
        ("trainsamples", 500, (DATA, "train_samples"), 500),
        ("validation_samples", 70, (DATA, "validation_samples"), 70),
        ("test_samples", 80, (DATA, "test_samples"), 80),
        ("validation_max_steps", 2, (DATA, "validation_samples"), 128),
        ("test_max_steps", 3, (DATA, "test_samples"), 192),
        ("num_epochs", 8, (TRAINING, "epochs"), 8),
        ("outputpath", "/kept", (TRAINING, "output"), "/kept"),
        ("display_interval", 7, (TRAINING, "display_interval"), 7),
        ("save_interval", 4, (TRAINING, "save_interval"), 4),
        ("validation_interval", 9, (TRAINING, "validation_interval"), 9),
        ("validation_batch_size", 48, (TRAINING, "evaluation_batch_size"), 48),
        ("create_summary", False, (TRAINING, "summaries"), False),
        ("restart", True, (TRAINING, "restart"), True),
        ("test_batch_size", 24, ("", "test_batch_size"), 24),
    ],
)
def test_a_key_becomes_its_field_and_no_other(
    key: str, value: Any, field: tuple[str, str], becomes: Any
) -> None:
    plain, changed = fields(read()), fields(read(**{key: value}))
    assert plain[field] != becomes, "otherwise this could not fail"
    assert changed[field] == becomes
    # An evaluation has the batch of the training where it is given none of its own.
    follow = {(TRAINING, "evaluation_batch_size"), ("", "test_batch_size")}
    others = {name for name in changed if changed[name] != plain[name]} - {field}
    assert others == (follow if key == "train_batch_size" else set())


def fields(config: TrainConfig) -> dict[tuple[str, str], Any]:
    """Every field of a configuration, by what it is a field of."""
    parts: dict[str, Any] = {
        TRAINING: config.training,
        DATA: config.options.data,
        OPTIONS: replace(config.options, training=None, data=Data()),
        "": replace(config, options=None),  # type: ignore[arg-type]
    }
    return {(part, name): value for part in parts for name, value in vars(parts[part]).items()}


def test_samples_of_a_test_are_limited_by_steps_of_its_own_batch_or_by_their_number() -> None:
    steps: dict[str, Any] = {"test_max_steps": 3, "test_batch_size": 10}
    assert read(**steps).options.data.test_samples == 30
    assert read(**steps, test_samples=20).options.data.test_samples == 20
    assert read(**steps, test_samples=99).options.data.test_samples == 30


def test_arch_decides_on_device_and_threads() -> None:
    assert read(arch="gpu").options.device == "gpu"
    knl = read(arch="knl").options
    assert (knl.device, knl.intra_op_threads, knl.inter_op_threads) == ("cpu", 33, 2)


def test_what_is_not_built_is_refused_with_the_reason() -> None:
    assert "groups of workers" in refused(fully_sync_fraction=0.5)
    assert "always measured" in refused(time=False)
    assert "async" in refused(mode="async", num_hot_spares=1)
    words = refused(model="deepmnist", input_shape=None, num_layers=2)
    assert "num_layers has no meaning with the model deepmnist" in words


def test_a_file_for_kfac_is_refused_for_that_and_for_no_mistyped_key() -> None:
    words = refused(
        optimizer="KFAC", cov_ema_decay=0.95, damping=0.001, kfac_inv_update_frequency=50
    )
    assert (
        "c.json: optimizer KFAC, the key cov_ema_decay, the key damping, the key "
        "kfac_inv_update_frequency: the optimizer KFAC of the older program is not built" in words
    )
    assert 'Try: "optimizer": "ADAM"' in words
    assert "c.json: the key damping: the optimizer KFAC" in refused(damping=0.001)


def test_the_network_of_the_older_program_needs_a_shape_that_its_name_does_not_deny() -> None:
    words = refused(model="hep_cnn_224", input_shape=None)
    assert 'input_shape is missing. Try: "input_shape": [3, 224, 224]' in words
    assert "[3, 64, 64]" in refused(input_shape=None)
    words = refused(model="hep_cnn_224", input_shape=[3, 64, 64])
    assert "hep_cnn_224 is not that of images of 64 × 64, hep_cnn_64" in words
    assert read(model="hep_cnn_224", input_shape=[3, 224, 224]).options.image_shape[0] == 224
    assert read(model="hep_cnn_64", input_shape=[3, 32, 32]).options.model == "hep_cnn_64"


def test_dropout_p_is_for_the_models_that_have_some() -> None:
    words = refused(model="resnet50", input_shape=None, dropout_p=0.3)
    assert "dropout_p has no meaning with the model resnet50. Try: leave out dropout_p" in words
    assert read(model="resnet50", input_shape=None).options.model_options == {}
    for model in WITH_DROPOUT:
        options = read(model=model, input_shape=None, dropout_p=0.3).options.model_options
        assert options == {"dropout": 0.3}
    other = [name for name in models.names() if not name.startswith("hep_cnn")]
    assert [name for name in other if "dropout" in models.find(name).options] == [*WITH_DROPOUT]


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
    (note,) = read(num_fc_units=128, scaling_improvements=True).notes
    assert note == "num_fc_units has no part with scaling_improvements true"
    assert read(num_fc_units=128).notes == read(scaling_improvements=True).notes == ()


def test_the_command_line_goes_before_the_file() -> None:
    config = parse(json.dumps(LEAST), "c.json", {"num_epochs": 9, "restart": True})
    assert config.training.epochs == 9
    assert config.training.restart


def refused_file(
    path: Path, given: dict[str, Any] | None = None, stage: str = "", **changes: Any
) -> str:
    """What is said of a configuration in a file, for nodes that are not this machine."""
    path.write_text(json.dumps({**LEAST, **changes}))
    with pytest.raises(ConfigError) as caught:
        read_config(path, given, stage, is_local=False)
    return str(caught.value)


def test_a_relative_folder_of_nodes_is_blamed_on_who_named_it(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    words = refused_file(path, inputpath="data", outputpath="out")
    assert words.startswith(f"{path}: inputpath 'data' is relative")
    assert words.endswith("Try: --input DIR --output DIR, each beginning with / or ~/")
    words = refused_file(path, {"inputpath": "there"})
    assert words.startswith("--input 'there' is relative"), "the file's inputpath is a good one"
    assert words.endswith("Try: --input DIR, each beginning with / or ~/")
    words = refused_file(path, {"inputpath": "/there"}, outputpath="out")
    assert words.startswith(f"{path}: outputpath 'out' is relative")
    assert refused_file(path, stage="fast").startswith("--stage 'fast' is relative")


def test_a_value_of_an_option_is_blamed_on_the_option(tmp_path: Path) -> None:
    words = refused_file(tmp_path / "c.json", {"inputpath": "a\nb"})
    assert words.startswith("--input must be a text of printable characters")
    words = refused_file(tmp_path / "c.json", {"num_epochs": 1 << 40})
    assert words.startswith("--epochs must be a whole number")


def test_synthetic_images_have_no_folder_to_read_or_copy(tmp_path: Path) -> None:
    path, dummy = tmp_path / "c.json", {"data": "synthetic"}
    assert "--stage has no meaning with --dummy-data" in refused_file(path, dummy, stage="/fast")
    words = refused_file(path, {**dummy, "inputpath": "/data"})
    assert "--input has no meaning with --dummy-data: synthetic images are on no disk" in words
    words = refused_file(path, stage="/fast", data="synthetic")
    assert f"--stage has no meaning with data synthetic of {path}" in words
    path.write_text(json.dumps({**LEAST, "inputpath": "nowhere"}))
    assert read_config(path, dummy, is_local=False).options.data.path == "", "the file may name one"


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
