"""Data, optimizers and real training: what a job asks for, and what worker 0 tells of it."""

from __future__ import annotations

from perftest.record import record

SYNTHETIC = "synthetic"
TRAIN, VALIDATION, TEST = "train", "validation", "test"


@record(frozen=True)
class Data:
    """Where the images come from.

    kind: the name of a file of perftest/data.  path: a directory on the node ("" for synthetic).
    stage: a directory of the node's fast disk that the files are copied to first ("": no copy).
    *_samples: at most so many of the split are used (0: all of them).
    input_only: read and prepare the batches, and train on none.
    normweight: samples train with their `normweight` (hdf5), and not with 1.
    """

    kind: str = SYNTHETIC
    path: str = ""
    stage: str = ""
    train_samples: int = 0
    validation_samples: int = 0
    test_samples: int = 0
    input_only: bool = False
    normweight: bool = False


@record(frozen=True)
class Optimizer:
    """How gradients become an update; the learning rate is the job's.

    name: sgd, momentum, adam, rmsprop, adagrad or adadelta.  weight_decay: coefficient of the L2
    norm of the kernels that is added to the loss.
    """

    name: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0


@record(frozen=True)
class Training:
    """Real training instead of a measurement: epochs, validation, checkpoints; or one evaluation.

    display_interval: steps between two reports of progress.  save_interval: epochs between two
    checkpoints.  validation_interval: steps between two validations (0: one after each epoch).
    evaluation_batch_size: images per step of validation and test.
    output: directory on the node of worker 0, for checkpoints and, where `summaries` says so,
    TensorBoard's events.
    restart: go on from the newest checkpoint in `output`.  evaluate: train nothing; evaluate the
    test split with `checkpoint` ("": the newest).
    """

    epochs: int
    display_interval: int
    save_interval: int
    validation_interval: int
    evaluation_batch_size: int
    output: str
    summaries: bool
    restart: bool
    evaluate: bool
    checkpoint: str


@record(frozen=True)
class Staged:
    """The worker's node has copied the data to its fast disk."""

    seconds: float
    files: int
    bytes: int


@record(frozen=True)
class TrainingStarts:
    """What lies before the workers. first_epoch: 0, or where a checkpoint is taken up.

    train_samples: of an epoch, all workers together.  steps_per_epoch: of each worker.
    checkpoint: the one that is gone on from ("": none).
    """

    train_samples: int
    validation_samples: int
    test_samples: int
    steps_per_epoch: int
    first_epoch: int
    checkpoint: str


@record(frozen=True)
class Progress:
    """Where a worker stands. epoch, step: counted from 0, step within the epoch, the next one.

    loss: mean since the last report, without the term of the weight decay.  images: trained on by
    this worker since the last report, in `seconds`.
    """

    epoch: int
    step: int
    loss: float | None
    images: int
    seconds: float


@record(frozen=True)
class Evaluated:
    """Figures of one pass over a split. epoch: epochs trained on so far.

    loss: weighted mean of the cross entropy.  accuracy, weighted_accuracy: of the class with the
    largest logit, each sample counted once, or by its `weight`.  auc: area under the weighted ROC
    curve (None where there are more than two classes, or one alone in the split).
    """

    split: str
    epoch: int
    samples: int
    loss: float | None
    accuracy: float
    weighted_accuracy: float
    auc: float | None
    seconds: float


@record(frozen=True)
class Saved:
    """A checkpoint stands on the disk of worker 0's node. epoch: epochs trained on so far."""

    epoch: int
    checkpoint: str


@record(frozen=True)
class RocCurve:
    """Points of the weighted ROC curve, by falling threshold, thinned to at most 2,000.

    cut: (false positive rate, true positive rate) of the `psr` selection where the data has one.
    """

    false_positive_rates: tuple[float, ...]
    true_positive_rates: tuple[float, ...]
    cut: tuple[float, ...]
