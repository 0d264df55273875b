"""Pictures of states: a bright spot on black, where and as wide as the state says.

Pixels are row by row from the top; a spot is exp(-distance^2 / (2 variance)), so 1 in its middle.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blocks.kernels.caching import njit

Array = np.ndarray[Any, Any]

ARM = 0.36  # of the side of an image: from the pivot in its middle to the bob
BOB = 0.054  # of the side: standard deviation of the bob
ACROSS, DOWN = 30.0, 40.0  # half of what is seen of x and of y
NARROWEST = 7.0  # variance of the spot where z = 0, to which half of z is added


@njit(cache=True, nogil=True)
def _spot(
    row: float, column: float, row_var: float, column_var: float, line: Array, image: Array
) -> None:
    """Draw a spot with its middle at a row and a column, all in pixels.

    line   (columns,)        scratch
    image  (rows, columns)   written
    """
    for j in range(image.shape[1]):
        line[j] = math.exp(-0.5 * (j - column) ** 2 / column_var)
    for i in range(image.shape[0]):
        across = math.exp(-0.5 * (i - row) ** 2 / row_var)
        for j in range(image.shape[1]):
            image[i, j] = across * line[j]


@njit(cache=True, nogil=True)
def pendulum(states: Array, images: Array) -> None:
    """Draw the bob of a pendulum, the angle of which is the first number of a state [rad].

    states  (count, n)              angle 0: hanging down; a quarter turn: to the right
    images  (count, rows, columns)  written
    """
    rows, columns = images.shape[1], images.shape[2]
    line = np.empty(columns)
    for k in range(states.shape[0]):
        angle = states[k, 0]
        _spot(
            0.5 * (rows - 1) + ARM * rows * math.cos(angle),
            0.5 * (columns - 1) + ARM * columns * math.sin(angle),
            (BOB * rows) ** 2, (BOB * columns) ** 2, line, images[k],
        )  # fmt: skip


@njit(cache=True, nogil=True)
def lorenz(states: Array, images: Array) -> None:
    """Draw a point of the Lorenz attractor: at x, y, and the wider the larger z is.

    The spread is as in Buchnik et al., "Latent-KalmanNet", arXiv 2304.07827: x from -30 to 30
    across, y from -40 to 40 downwards, variance z / 2 + 7.

    states  (count, 3 or more)
    images  (count, rows, columns)  written
    """
    rows, columns = images.shape[1], images.shape[2]
    line = np.empty(columns)
    per_y, per_x = 0.5 * (rows - 1) / DOWN, 0.5 * (columns - 1) / ACROSS
    for k in range(states.shape[0]):
        wide = max(NARROWEST + 0.5 * states[k, 2], 1.0)
        _spot(
            (states[k, 1] + DOWN) * per_y, (states[k, 0] + ACROSS) * per_x,
            wide * per_y**2, wide * per_x**2, line, images[k],
        )  # fmt: skip


@njit(cache=True, nogil=True)
def salt_pepper(images: Array, uniforms: Array, share: float) -> None:
    """Make a share of all pixels black or white, in place.

    images    (count, rows, columns)
    uniforms  (count * rows * columns,)  uniform in 0 ... 1, one for each pixel
    """
    at = 0
    for k in range(images.shape[0]):
        for i in range(images.shape[1]):
            for j in range(images.shape[2]):
                if uniforms[at] < 0.5 * share:
                    images[k, i, j] = 0.0
                elif uniforms[at] >= 1.0 - 0.5 * share:
                    images[k, i, j] = 1.0
                at += 1
