"""Keeps what libraries print about a file off the terminal; the message of `BadFile` says it."""

import logging
import os
import sys
import threading
import warnings

LOGGERS = ("tifffile", "nibabel.global", "pydicom")  # nibabel 5.4's own switch leaves them on


class _Quiet:
    """Turns off warnings, the loggers and the standard error, to which libraries in C++ write.

    Threads may use it at the same time: the first one turns them off, the last one on again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._kept = 0, -1
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._turn_off()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._turn_on()

    def _turn_off(self) -> None:
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        self._loggers = [one for one in map(logging.getLogger, LOGGERS) if not one.disabled]
        for logger in self._loggers:
            logger.disabled = True
        if sys.__stderr__ is not None:  # None: the process has no standard error
            self._kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)

    def _turn_on(self) -> None:
        if self._kept >= 0:
            os.dup2(self._kept, 2)
            os.close(self._kept)
            self._kept = -1
        for logger in self._loggers:
            logger.disabled = False
        self._warnings.__exit__(None, None, None)


quiet = _Quiet()  # of the process: `with quiet:`
