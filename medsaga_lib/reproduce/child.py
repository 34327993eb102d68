"""Run a `medsaga` command that ends when the process that started it ends, even if it is killed.

Its standard input is a pipe from that process, and the pipe closes with it. Otherwise a training
would go on without its grid, and write into the folder of the run that continues it.
"""

import os
import runpy
import sys
import threading


def main() -> None:
    """Run the command line in this process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("medsaga_lib.cli", run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
