"""What can go wrong, by what the caller can do about it.

Every error that a user of a flow can cause derives from `KalvitError`; the command line
prints its text without a traceback and exits with code 2. Anything else is a bug, of a
block or of the runtime, and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KalvitError(Exception):
    """Base of all errors whose text is meant for the user of a flow."""


class ParameterError(KalvitError):
    """A parameter of a block is missing, unknown, of the wrong type or out of range."""


class ConnectError(KalvitError):
    """Blocks or fields of a flow do not fit together."""


class FlowError(KalvitError):
    """A flow file cannot be read, or says something that no flow can mean."""


class FieldError(KalvitError):
    """An array is not what its field declares."""


class FrameError(KalvitError):
    """Bytes that came over an edge are not a frame; `check` names the test they failed."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(text)
        self.check = check


class WeightsError(KalvitError):
    """Weights do not fit the block that should take them, or are damaged."""


class RunError(KalvitError):
    """A run could not start, or ended because something outside the flow failed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: '; did you mean 'x'?', or nothing.

    >>> did_you_mean("detector.viterbi_net", ["detector.viterbinet", "sink.null"])
    "; did you mean 'detector.viterbinet'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
