"""Random numbers that depend on where they stand, not on when they are drawn.

A value belongs to (seed, block, stream, purpose, absolute position). It is the same whatever
the split of a flow into workers and the cut of a stream into frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from pipeline.frame import Array

CHUNK = 4096  # positions that share one generator


class RandomStream:
    """Draws of one kind along a stream, addressed by absolute position.

    draw    called as draw(rng, CHUNK) for each chunk of positions; its first axis must have
            length CHUNK
    key     whatever the numbers depend on: seed, block name, stream, purpose

    >>> noise = RandomStream(lambda rng, n: rng.standard_normal(n), 7, "channel", "main", "noise")
    >>> whole = noise.take(0, 10_000)
    >>> bool((noise.take(4000, 200) == whole[4000:4200]).all())
    True
    """

    def __init__(self, draw: Callable[[np.random.Generator, int], Array], *key: str | int) -> None:
        self._draw = draw
        digest = hashlib.sha256(repr(key).encode()).digest()
        self._key = np.frombuffer(digest[:16], dtype=np.uint64)
        self._chunk = -1
        self._values: Array = np.empty(0)

    def take(self, first: int, count: int) -> Array:
        """The draws at positions first ... first + count - 1, as a new array."""
        if count <= 0:
            return self._load(first // CHUNK)[:0].copy()
        pieces = []
        position, stop = first, first + count
        while position < stop:
            chunk, offset = divmod(position, CHUNK)
            piece = self._load(chunk)[offset : offset + stop - position]
            pieces.append(piece)
            position += piece.shape[0]
        return pieces[0].copy() if len(pieces) == 1 else np.concatenate(pieces)

    def _load(self, chunk: int) -> Array:
        if chunk != self._chunk:
            # Philox is counter-based: the upper counter word selects the chunk.
            bits = np.random.Philox(key=self._key, counter=[0, 0, 0, chunk])
            values = self._draw(np.random.Generator(bits), CHUNK)
            if len(values) != CHUNK:
                raise ValueError(f"a draw gave {len(values)} values, but {CHUNK} are drawn at once")
            self._values, self._chunk = values, chunk
        return self._values
