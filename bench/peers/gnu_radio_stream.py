"""One end of a ZeroMQ stream of floats between flow graphs, run by Debian's Python.

python gnu_radio_stream.py send ADDRESS           as fast as they are taken, until it is ended
python gnu_radio_stream.py take ADDRESS SECONDS   says how many came in a second
"""

from __future__ import annotations

import sys
import time

ITEM_BYTES = 4
WARM_ITEMS = 1_000_000


def main() -> None:
    from gnuradio import blocks, gr, zeromq

    what, address, *seconds = sys.argv[1:]
    graph = gr.top_block()
    if what == "send":
        source = blocks.null_source(ITEM_BYTES)
        graph.connect(source, zeromq.push_sink(ITEM_BYTES, 1, address, 100, False, -1))
        graph.run()
    sink = blocks.null_sink(ITEM_BYTES)
    graph.connect(zeromq.pull_source(ITEM_BYTES, 1, address, 100, False, -1), sink)
    graph.start()
    while sink.nitems_read(0) < WARM_ITEMS:
        time.sleep(0.001)
    before, begin = sink.nitems_read(0), time.monotonic()
    time.sleep(float(seconds[0]))
    rate = (sink.nitems_read(0) - before) / (time.monotonic() - begin)
    sys.stdout.write(f"{rate}\n")
    sys.stdout.flush()
    graph.stop()
    graph.wait()


if __name__ == "__main__":
    main()
