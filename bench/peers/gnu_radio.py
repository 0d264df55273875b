"""Trellis and FEC blocks of GNU Radio, in a flow graph between a source and a sink of vectors.

What counts is the CPU time that GNU Radio finds in the `work` of the block alone, with its own
performance counters; source, sink and scheduler are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.peers import Work

LEAST_ITEMS = 300_000  # of a run: the graph takes some ms to start


def _graph(
    make: Callable[[], Any], sources: list[Any], sink: Callable[[], Any], outputs: int, size: int
) -> Work:
    """A block run over its inputs, again and again until there are enough outputs.

    make     the block
    sources  arrays, one for each of its inputs
    sink     of vectors
    outputs  from all inputs, of which each run returns the first as many
    size     of an output item in bytes
    """
    from gnuradio import blocks, gr

    spent = 0.0
    repeats = -(-LEAST_ITEMS // outputs)

    def run() -> Any:
        nonlocal spent
        graph, block, end = gr.top_block(), make(), sink()
        for k, (kind, values) in enumerate(sources):
            graph.connect(kind(values, True), (block, k))
        graph.connect(block, blocks.head(size, repeats * outputs), end)
        graph.run()
        # the graph may go past its end: count what the block has done
        work = 1e-9 * block.pc_work_time_total()
        if not work > 0.0:
            raise RuntimeError("GNU Radio counts no work; its performance counters are off")
        spent += work * repeats * outputs / block.nitems_written(0)
        return np.array(end.data()[:outputs])

    return Work(run, f"GNU Radio {gr.version()}", lambda: spent, repeats)


def _machine(edges: int, order: int) -> Any:
    """The shift register whose outputs are its edges: past state, then the newest symbol."""
    from gnuradio import trellis

    numbers, states = np.arange(edges), edges // order
    return trellis.fsm(order, states, edges, (numbers % states).tolist(), numbers.tolist())


def viterbi(samples: Any, levels: Any, order: Any, noise_var: Any) -> Work:
    """MLSE: samples (word, time) float32 or complex64, levels (edge,) of the same kind."""
    from gnuradio import blocks, digital, trellis

    complex_ = samples.dtype.kind == "c"
    make = trellis.viterbi_combined_cb if complex_ else trellis.viterbi_combined_fb
    source = blocks.vector_source_c if complex_ else blocks.vector_source_f
    machine, length = _machine(levels.size, int(order)), samples.shape[1]
    work = _graph(
        lambda: make(machine, length, 0, -1, 1, levels.tolist(), digital.TRELLIS_EUCLIDEAN),
        [(source, samples.ravel().tolist())], blocks.vector_sink_b, samples.size, 1,
    )  # fmt: skip
    return work._replace(run=lambda: work.run().reshape(samples.shape))


def sum_product(samples: Any, levels: Any, order: Any, noise_var: Any, exact: Any) -> Work:
    """Posteriors of BPSK, decided: samples (word, time) float32, levels (edge,)."""
    from gnuradio import blocks, digital, trellis

    # the block has no noise level: its metric is the square, which is to be -log p
    scale = 1.0 / np.sqrt(2.0 * float(noise_var))
    machine, length = _machine(levels.size, int(order)), samples.shape[1]
    kind = trellis.TRELLIS_SUM_PRODUCT if exact else trellis.TRELLIS_MIN_SUM
    work = _graph(
        lambda: trellis.siso_combined_f(
            machine, length, 0, -1, True, False, kind, 1, (scale * levels).tolist(),
            digital.TRELLIS_EUCLIDEAN,
        ),
        [
            (blocks.vector_source_f, [0.0] * (2 * samples.size)),
            (blocks.vector_source_f, (scale * samples).ravel().tolist()),
        ],
        blocks.vector_sink_f, 2 * samples.size, 4,
    )  # fmt: skip

    def run() -> Any:
        costs = work.run().reshape(*samples.shape, 2)
        return costs[..., 1] < costs[..., 0]

    return work._replace(run=run)


def convolutional(soft: Any, generators: Any, ending: Any) -> Work:
    """Bits of K = 7, rate 1/2: soft (word, bit, 2) int8, positive for bit 1.

    ending  words are decoded one by one, and their last 6 bits empty the register; else all is one
            stream, cut into frames as long
    """
    from gnuradio import blocks, fec

    words, steps, _ = soft.shape
    bits = steps - 6 if ending else steps
    mode = fec.CC_TERMINATED if ending else fec.CC_STREAMING
    shifted = (soft.astype(np.int16) + 128).astype(np.uint8).ravel().tolist()
    reversed_ = [int(f"{int(g):07b}"[::-1], 2) for g in generators]
    work = _graph(
        lambda: fec.decoder(
            fec.cc_decoder.make(bits, 7, 2, reversed_, 0, 0 if ending else -1, mode, False), 1, 1
        ),
        [(blocks.vector_source_b, shifted)], blocks.vector_sink_b, words * bits, 1,
    )  # fmt: skip
    return work._replace(run=lambda: work.run().reshape(words, bits))
