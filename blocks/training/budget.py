"""A bound on the time that a call may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np


class TooLate(Exception):  # noqa: N818  it is no error of whoever called
    """A call was not done in time."""


class Budget:
    """Makes one call at a time and waits for it, but only so long.

    A call that is not done then is given up: it goes on in a thread of its own, which nothing can
    end, and what it finds is dropped. Until it has ended, `busy` says so, and no other call is
    made. It has to let other threads run, as Python does and kernels with nogil do.

    seconds   0: no bound, and no thread
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a call that was given up still goes on."""
        return self._thread is not None and self._thread.is_alive()

    def run(self, call: Callable[[], Any]) -> Any:
        """What the call returns, or raises; TooLate where it takes too long."""
        if not self._seconds:
            with np.errstate(all="ignore"):
                return call()
        if self.busy:
            raise RuntimeError("the call before has not ended")
        found: list[Any] = []
        raised: list[Exception] = []

        def work() -> None:
            try:
                with np.errstate(all="ignore"):  # what is not finite is seen in the result
                    found.append(call())
            except Exception as error:
                raised.append(error)

        self._thread = threading.Thread(target=work, name="update", daemon=True)
        self._thread.start()
        self._thread.join(self._seconds)
        if raised:
            raise raised[0]
        if not found:
            raise TooLate(f"not done within {self._seconds:g} s")
        return found[0]
