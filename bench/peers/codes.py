"""Decoders of the convolutional code K = 7 in Python packages.

soft (word, bit, 2) int8, of terminated words, positive for bit 1; generators have the newest bit
in their highest place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.peers import Work, versioned


def commpy(soft: Any, generators: Any) -> Work:
    """scikit-commpy, one word after the other, real numbers as soft values."""
    from commpy.channelcoding import Trellis, viterbi_decode

    reversed_ = [int(f"{int(g):07b}"[::-1], 2) for g in generators]
    trellis = Trellis(np.array([6]), np.array([reversed_]))
    values = soft.astype(np.float64).reshape(len(soft), -1)

    def run() -> Any:
        decoded = [viterbi_decode(word, trellis, decoding_type="unquantized") for word in values]
        return np.array(decoded)[:, :-6]

    return Work(run, versioned("scikit-commpy"))


def sionna(soft: Any, generators: Any) -> Work:
    """sionna on the CPU, all words as one batch."""
    import torch
    from sionna.phy.fec.conv import ViterbiDecoder

    torch.set_num_threads(1)
    polynomials = tuple(f"{int(g):07b}" for g in generators)
    decoder = ViterbiDecoder(gen_poly=polynomials, terminate=True, device="cpu")
    llr = torch.tensor(soft.reshape(len(soft), -1), dtype=torch.float32)

    def run() -> Any:
        with torch.inference_mode():
            return decoder(llr).numpy()

    return Work(run, versioned("sionna-no-rt"))
