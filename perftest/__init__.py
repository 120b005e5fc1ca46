"""The node's side of runtest: the agent, its tasks, and the training strategies.

This file is the first of ours that a node's interpreter reads, so it must compile on any Python
and is the place where one that is too old is told so kindly.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - this is the check itself
    sys.stderr.write(
        "perftest: Python 3.10 or newer is needed, and %s is Python %d.%d\n"  # noqa: UP031
        % (sys.executable, sys.version_info[0], sys.version_info[1])
    )
    sys.exit(76)
