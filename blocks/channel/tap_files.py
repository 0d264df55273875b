"""Measured channel taps from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import ParameterError
from pipeline.frame import Array


def load(paths: Sequence[str]) -> Array:
    """Taps over coherence blocks, (blocks, taps) float64.

    paths    one file with a row of taps for each coherence block, newest symbol first; or one
             file for each tap, newest symbol first, with one value for each block. `.npy`,
             `.csv` (numbers with commas, `#` starts a comment) or `.mat` (MATLAB 5 with one
             variable, read by scipy).

    Raises ParameterError where a file is missing, is none of these, does not hold finite real
    numbers, or differs in length from the others.
    """
    arrays = [_numbers(Path(path)) for path in paths]
    if len(arrays) == 1:
        return np.atleast_2d(arrays[0])
    for path, array in zip(paths, arrays, strict=True):
        if array.size != max(array.shape):
            raise ParameterError(
                f"taps_files: '{path}' has shape {array.shape}; of several files, each holds one "
                "tap: one value per coherence block"
            )
        if array.size != arrays[0].size:
            raise ParameterError(
                f"taps_files: '{path}' has {array.size} values, but '{paths[0]}' has "
                f"{arrays[0].size}; every tap needs one value per coherence block"
            )
    return np.stack([array.ravel() for array in arrays], axis=1)


def _numbers(path: Path) -> Array:
    readers = {".npy": _npy, ".csv": _csv, ".mat": _mat}
    where = f"taps_files: '{path}'"
    if path.suffix.lower() not in readers:
        raise ParameterError(f"{where} ends in none of {', '.join(readers)}; convert it to .csv")
    if not path.is_file():
        raise ParameterError(f"{where} does not exist, or is no file; give the path of one")
    try:
        array = readers[path.suffix.lower()](path)
    except ParameterError as error:
        raise ParameterError(f"{where} {error}") from None
    except Exception as error:  # numpy and scipy raise what they like on a damaged file
        raise ParameterError(f"{where} cannot be read: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        raise ParameterError(f"{where} does not hold real numbers; store magnitudes, or real taps")
    if array.ndim not in (1, 2) or array.size == 0:
        raise ParameterError(
            f"{where} has shape {array.shape}; expected rows of taps, one per coherence block"
        )
    if not np.isfinite(array).all():
        raise ParameterError(f"{where} holds NaN or infinity; remove those rows")
    return array.astype(np.float64)


def _npy(path: Path) -> Array:
    array: Array = np.load(path, allow_pickle=False)
    return array


def _csv(path: Path) -> Array:
    return np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float64)


def _mat(path: Path) -> Array:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ParameterError(
            "needs scipy to be read; pip install scipy, or convert it to .csv"
        ) from None
    variables = {name: array for name, array in loadmat(path).items() if name[0] != "_"}
    if len(variables) != 1:
        names = ", ".join(sorted(variables)) or "none"
        raise ParameterError(f"holds {len(variables)} variables ({names}); expected one, the taps")
    array: Array = next(iter(variables.values()))
    return array
