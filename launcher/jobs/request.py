"""What a job asks Slurm for, as options of sbatch. Opens nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from launcher.errors import UsageError

# Options of sbatch without which the job would not be found again.
_OURS = ("--array", "--error", "--job-name", "--output", "--wrap")
_OURS_IN_SHORT = ("-a", "-e", "-J", "-o")
_OF_GPUS = ("--gres", "--gpus", "-G")
_OF_CPUS = ("--cpus-per-task", "--exclusive", "--ntasks", "--mincpus", "-c", "-n")


@dataclass(frozen=True)
class Request:
    """What sbatch is asked for.

    gres: `gpu:k80:2` of each node, or nothing.  cpus: of each node; 0 for what Slurm gives.
    extra: options of sbatch as a person typed them, which have the last word.
    """

    nodes: int
    gres: str = ""
    cpus: int = 0
    partition: str = ""
    constraint: str = ""
    time: str = ""
    account: str = ""
    extra: tuple[str, ...] = ()

    def options(self) -> list[str]:
        """As options of sbatch."""
        named = {
            "partition": self.partition,
            "constraint": self.constraint,
            "time": self.time,
            "account": self.account,
            "gres": self.gres,
            "cpus-per-task": self.cpus or "",
        }
        asked = [f"--{name}={value}" for name, value in named.items() if value != ""]
        return [f"--nodes={self.nodes}", *asked, *self.extra]


def with_devices(request: Request, device: str, gpu_type: str, gpus: int) -> Request:
    """The request with so many GPUs of a type on each node; with device cpu, with a processor for
    each worker, on nodes that have the type as a feature.

    Options of a person that say the same stay alone. Raises UsageError.
    """
    if device == "cpu":
        both = "&".join(each for each in (request.constraint, gpu_type) if each)
        has_cpus = _has(request, _OF_CPUS)
        return replace(request, constraint=both, cpus=0 if has_cpus else gpus)
    if not _has(request, _OF_GPUS):
        return replace(
            request, gres=":".join(("gpu", *([gpu_type] if gpu_type else []), str(gpus)))
        )
    if gpu_type:
        raise UsageError(
            "--gpu-type and --sbatch-option with GPUs are two answers to one question",
            "one of them",
        )
    return request


def check_request(request: Request) -> None:
    """Raises UsageError for what would break the script, or hide the job from us."""
    for option in request.options():
        if not option.isprintable():
            raise UsageError(f"{option[:80]!a} has characters that do not print")
    for option in request.extra:
        name = option.partition("=")[0]
        if not option.startswith("-"):
            raise UsageError(
                f"--sbatch-option {option[:80]!a} is no option of sbatch",
                "--sbatch-option=--mem=16G, once for each",
            )
        is_ours = len(name) > 3 and any(each.startswith(name) for each in _OURS)
        if is_ours or name[:2] in _OURS_IN_SHORT:
            raise UsageError(
                f"--sbatch-option {name[:80]} is what submit sets itself, to find the job again",
                "leave it out; --gpu-type, --gpus and --staged-from make several jobs",
            )


def _has(request: Request, names: tuple[str, ...]) -> bool:
    return any(option.startswith(names) for option in request.extra)
