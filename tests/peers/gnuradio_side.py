"""Flow graphs of GNU Radio at the other ends of a test, run by Debian's Python.

    gnuradio_side.py FOLDER '{"sinks": {"push": ADDRESS, ...}, "sources": {"pull": ADDRESS, ...}}'

Each sink sends complex items 0, 1, ... PERIOD - 1, 0, ... without end, with tags. Each source takes
ITEMS items; when all have them, the items are in FOLDER/PATTERN.npy, the tags in FOLDER/tags.json,
and the word "done" on standard output. Goes on until it is ended.
"""

import json
import sys
import time

import numpy as np
import pmt
from gnuradio import blocks, gr, zeromq

KEY = "kalvit"
PERIOD = 10_000
ITEMS = 20_000
MARKED = (7, 5007, 9999)
FLOAT_RATE = 3e6  # items per second, so that nobody is swamped


def tag(offset, key, value):
    made = gr.tag_t()
    made.offset, made.key, made.value = offset, pmt.intern(key), value
    made.srcid = pmt.intern("radio")
    return made


def source_of_items(repeat):
    described = [
        tag(0, "rx_rate", pmt.from_double(2e6)),
        tag(0, "rx_freq", pmt.from_double(1.09e9)),
        tag(0, "rx_time", pmt.make_tuple(pmt.from_uint64(1_700_000_000), pmt.from_double(0.25))),
    ]
    marks = [tag(at, "mark", pmt.from_long(at)) for at in MARKED]
    items = np.arange(PERIOD).astype(np.complex64)
    return blocks.vector_source_c(items.tolist(), repeat, 1, described + marks)


def make_sink(pattern, address):
    more = (KEY, False) if pattern == "pub" else ()
    return getattr(zeromq, f"{pattern}_sink")(8, 1, address, 100, True, -1, *more)


def make_source(pattern, address):
    more = (KEY,) if pattern == "sub" else ()
    return getattr(zeromq, f"{pattern}_source")(8, 1, address, 100, True, -1, *more)


def main():
    folder, ends = sys.argv[1], json.loads(sys.argv[2])
    graph = gr.top_block()
    for pattern, address in ends["sinks"].items():
        throttle = blocks.throttle(8, FLOAT_RATE)
        graph.connect(source_of_items(True), throttle, make_sink(pattern, address))
    taken = {}
    for pattern, address in ends["sources"].items():
        taken[pattern] = blocks.vector_sink_c()
        graph.connect(make_source(pattern, address), blocks.head(8, ITEMS), taken[pattern])
    graph.start()
    while any(sink.nitems_read(0) < ITEMS for sink in taken.values()):
        time.sleep(0.02)
    tags = {}
    for pattern, sink in taken.items():
        np.save(f"{folder}/{pattern}.npy", np.array(sink.data(), np.complex64))
        tags[pattern] = [
            (t.offset, pmt.symbol_to_string(t.key), pmt.to_python(t.value)) for t in sink.tags()
        ]
    with open(f"{folder}/tags.json", "w") as file:
        json.dump(tags, file)
    sys.stdout.write("done\n")
    sys.stdout.flush()
    time.sleep(600)


main()
