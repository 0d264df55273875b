"""Decoder of Reed-Solomon codes: decided code bits in, information bits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8

from blocks import fields, pilots
from blocks.kernels import reed_solomon
from blocks.kernels.reed_solomon_code import FAILED
from blocks.position import Position
from blocks.reed_solomon import ReedSolomonBlock
from pipeline.errors import FieldError
from pipeline.frame import Array, FrameInfo, Scalar


class Decoded(NamedTuple):
    """What the decoder adds."""

    payload: Annotated[UInt8[Array, "word data"], fields.PAYLOAD]
    accepted: Annotated[Bool[Array, "word"], fields.ACCEPTED]
    corrected: Annotated[Int16[Array, "word"], fields.CORRECTED]
    reencoded: Annotated[UInt8[Array, "word code"], fields.REENCODED]
    difference: Annotated[Float32[Array, "word"], fields.DIFFERENCE]
    pilot: Annotated[Bool[Array, "word"], fields.PILOT]


class ReedSolomon(ReedSolomonBlock, name="decoder.reed_solomon"):
    """The code word that is within reach of the decided bits, and how far off they were.

    In reach are v wrong and e erased bytes with 2 v + e <= n - k, for which there is one code word
    at most. Where there is none the word fails: its bits stay as they were decided, which for the
    payload is the best guess. A word beyond reach of what was sent may still be in reach of another
    code word, and is then accepted wrongly: of random words with t = (n - k) / 2 and no erasures
    the share (sum over v = 0 ... t of binom(n, v) 255^v) / 256^(n-k), near 1 / t! for n = 255
    (McEliece and Swanson, IEEE Trans. Inf. Theory 32(5), 1986). Erasures use up the parity that
    would tell: with n - k of them every word is accepted.

    `difference` says how much of the word the code had to change; a receiver that learns from its
    accepted words (`reencoded`) may leave out those with a large one.

    Pilots are decoded by knowledge: whatever came, the word is accepted, with the bits that were
    sent, and `corrected` and `difference` count what was decided wrongly. They are told by their
    number in the stream, so no word may be missing before the decoder except in a gap, of which
    the stream tells.

    hard        (word, code) uint8, 0 or 1; 8 n bits per word
    erased      (word, byte) bool, optional: bytes of the word that are not to be trusted
    payload     (word, data) uint8, 0 or 1; 8 k bits per word
    accepted    (word) bool
    corrected   (word) int16, bytes that were changed, erased ones included; -1: failed
    reencoded   (word, code) uint8, 0 or 1
    difference  (word) float32, 0 ... 1; NaN: failed
    pilot       (word) bool
    """

    pilot_every: int = pilots.EVERY
    pilot_seed: int = pilots.SEED

    def start(self) -> None:
        self._pilots = pilots.Pilots(self.pilot_every, self.pilot_seed)
        self._position = Position()
        self._codec = reed_solomon.Codec(*self._numbers())
        self._codec.decode(np.empty((0, self.n), np.uint8))  # compiled before the first frame

    def process(
        self,
        hard: UInt8[Array, "word code"],
        erased: Bool[Array, "word byte"] | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Decoded:
        if erased is not None and erased.shape[1] != self.n:
            raise FieldError(
                f"{self.name}: 'erased' has {erased.shape[1]} bytes per word, but n = {self.n}; "
                "expected one for each byte of the code word"
            )
        received = self._bytes("hard", hard, self.n)
        words, corrected = self._codec.decode(received, erased)
        known = np.zeros((len(hard), 8 * self.k), np.uint8)
        pilot = self._pilots.put(known, self._position.take(info, len(hard)))
        if pilot.any():
            words[pilot] = self._codec.encode(np.packbits(known[pilot], axis=1))
            corrected[pilot] = (words[pilot] != received[pilot]).sum(axis=1)
        accepted = corrected != FAILED
        reencoded = np.unpackbits(words, axis=1)
        difference = (reencoded != hard).mean(axis=1, dtype=np.float32)
        difference[~accepted] = np.nan
        return Decoded(
            payload=np.ascontiguousarray(reencoded[:, : 8 * self.k]),
            accepted=accepted,
            corrected=corrected,
            reencoded=reencoded,
            difference=difference,
            pilot=pilot,
        )

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"position": self._position.next}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._position.next = int(state["position"])
