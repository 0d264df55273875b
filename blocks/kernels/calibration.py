"""What makes the covariances of a filter agree with its errors, as weights carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import matrices

Array = np.ndarray[Any, Any]

PREFIX = "calibration."  # what the names of its arrays in weights begin with


class Calibration(NamedTuple):
    """Noise of the recursion of covariances, which is not that of the gain.

    kernels/kalmannet_filter.py and kernels/learned_noise.py say what they do with it;
    training/calibration.py fits it.

    process      (m, m)  Q, per nominal interval
    observation  (n, n)  R; (0, 0) of a filter that is told its own
    share        c, of the noise that the filter knows of
    """

    process: Array
    observation: Array
    share: float

    def arrays(self) -> dict[str, Array]:
        """As they stand in weights."""
        given = {name: np.array(value, np.float64) for name, value in self._asdict().items()}
        return {f"{PREFIX}{name}": array for name, array in given.items() if array.size}

    @classmethod
    def of(cls, arrays: Mapping[str, Array], m: int, n: int) -> Calibration | None:
        """That of weights; None if they have none, ValueError if it is no calibration.

        n is 0 where no R is due.
        """
        if f"{PREFIX}process" not in arrays:
            return None
        Q, R, share = (
            np.empty((0, 0)) if name == "observation" and not n
            else np.array(arrays[f"{PREFIX}{name}"], np.float64) for name in cls._fields
        )  # fmt: skip
        for name, matrix, size in (("process", Q, m), ("observation", R, n)):
            square = matrix.shape == (size, size)
            if not square or not matrices.root(matrix, size, np.empty_like(matrix)):
                raise ValueError(f"{PREFIX}{name} is no covariance of {size} numbers")
        if share.size != 1 or not share > 0.0:
            raise ValueError(f"{PREFIX}share = {share}, but must be above 0")
        return cls(Q, R, float(share))
