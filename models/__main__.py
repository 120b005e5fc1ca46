"""`python -m models [NAME]`: lists the networks, or says in one line why NAME is none.

For programs that must not import this package, and start it instead. Needs no TensorFlow.
"""

from __future__ import annotations

import sys

import models


def main() -> int:
    """Exit status 1 for a name that is no network."""
    if len(sys.argv) < 2:
        sys.stdout.writelines(f"{name}\n" for name in models.names())
        return 0
    try:
        models.find(sys.argv[1])
    except models.UnknownModelError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
