"""Feed one parser with what atheris thinks of: `python -m fuzz TARGET [options of libFuzzer]`.

Started in tests/, by `make fuzz`. Ends with status 0 when the time is up and nothing was found; an
input that breaks the parser is left in a file `crash-...`, whose name is printed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris


def main(name: str, options: list[str]) -> None:
    """Fuzz one target."""
    with atheris.instrument_imports(include=["launcher", "perftest"]):
        from fuzz.targets import SEEDS, TARGETS
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed{number}").write_bytes(seed)
    limits = ["-timeout=20", "-rss_limit_mb=2000", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:] == ["--names"]:
        from fuzz.targets import TARGETS

        print(*TARGETS)
    else:
        os.environ["MPLBACKEND"] = "svg"
        main(sys.argv[1], sys.argv[2:])
