"""What the ways of computing come to on a device, and which have no meaning together. Pure."""

from __future__ import annotations

from launcher.errors import PlanError
from launcher.tasks import INPUT_ONLY, Options
from launcher.text import counted

# What a row of the log says of what is on or off.
ON_OR_OFF = {True: "on", False: "off"}


def check_computing(options: Options) -> None:
    """Raises PlanError for options that have no meaning together, before any node is asked."""
    if options.strategy == INPUT_ONLY:
        for option, is_given in (
            ("--precision", options.precision != "fp32"),
            ("--xla on", options.xla == "on"),
            ("--profile", options.profile_steps > 0),
        ):
            if is_given:
                raise PlanError(
                    f"{option} has no meaning with --input-only, which computes nothing",
                    f"leave out {option}",
                )
    if options.precision == options.gradient_dtype == "fp16":
        raise PlanError(
            "--gradient-dtype fp16 would undo the loss scale that --precision fp16 needs",
            "--gradient-dtype bf16",
        )
    if options.training is not None and options.precision == "fp16":
        raise PlanError(
            "--precision fp16 is for measurements: checkpoints do not keep its loss scale",
            "--precision bf16, which needs none",
        )


def check_device(options: Options, device: str) -> None:
    """Raises PlanError for what only GPUs can do, on others. device: cpu or gpu."""
    if options.precision == "tf32" and device != "gpu":
        raise PlanError(
            "--precision tf32 is a way of GPUs to multiply, and this run computes on processors",
            "--precision fp32, or bf16",
        )
    if options.communication == "nccl" and device != "gpu":
        raise PlanError(
            "--communication nccl is a way between GPUs, and this run computes on processors",
            "--communication ring, or auto",
        )


def uses_xla(options: Options, device: str) -> bool:
    """What `--xla auto` comes to on this device, where nothing else was said."""
    if options.strategy == INPUT_ONLY:
        return False
    return options.xla == "on" or (options.xla == "auto" and device == "gpu")


def in_words(precision: str, xla: bool, onednn: bool, threads: tuple[int, int] = (0, 0)) -> str:
    """How a run computes, for people: `bf16, with XLA`. threads: intra-op and inter-op."""
    words = [precision]
    if xla:
        words.append("with XLA")
    if not onednn:
        words.append("without oneDNN")
    for count, name in zip(threads, ("intra", "inter"), strict=True):
        if count:
            words.append(counted(count, f"{name}-op thread"))
    return ", ".join(words)
