"""What a flow is to run: each rule of the check, and what a plan says of a flow that passes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest
import tomli_w
import toy_blocks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConnectError, FlowError, KalvitError, ParameterError
from pipeline.flow import Edge, Flow
from pipeline.signature import FieldType

pytestmark = pytest.mark.usefixtures("register")
register = toy_blocks.register

FLOW = """\
name = "toy"

[blocks.start]
use = "source.toy"
length = 8
[blocks.front]
use = "frontend.toy"
gain = 2.0
writes = { scaled = "louder" }
[blocks.detector]
use = "detector.learned"
reads = { samples = "louder" }
[blocks.trainer]
use = "trainer.toy"
[blocks.errors]
use = "sink.toy"

[edges]
data = ["start -> front -> detector", "detector -> errors"]
tap = [
  "detector -> trainer",
]
weights = [{ path = "trainer ~> detector", delay = 1 }]

[workers]
rx = ["front", "detector"]
learn = ["trainer"]
"""


def edited(*changes: tuple[str, str]) -> str:
    text = FLOW
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def added(table: str, data: str) -> str:
    """The flow with another block named `more` and another data path."""
    return edited(
        ("[blocks.errors]", f"[blocks.more]\n{table}\n[blocks.errors]"),
        ('"detector -> errors"', f'"detector -> errors", "{data}"'),
    )


def test_a_plan_says_what_each_block_reads_and_writes():
    plan = Flow.from_toml(FLOW).check()
    assert list(plan.blocks) == ["start", "front", "detector", "errors", "trainer"]
    assert plan.workers == {
        "main": ("start", "errors"), "rx": ("front", "detector"), "learn": ("trainer",),
    }  # fmt: skip
    front = plan.blocks["front"]
    assert (front.name, front.worker, front.genie) == ("front", "rx", False)
    assert front.cls is toy_blocks.ToyFrontend
    assert front.block.gain == 2.0
    assert front.reads == (("samples", "samples"),)
    ((name, spec),) = front.writes
    assert (name, spec.name, spec.type) == ("louder", "louder", FieldType.of("float32", "time"))
    assert spec.meaning.unit == "V"
    detector = plan.blocks["detector"]
    assert detector.reads == (("samples", "louder"),)
    assert sorted(detector.given) == ["louder", "samples", "sent"]
    assert detector.given["sent"].meaning.truth
    assert plan.blocks["start"].given == {}


def test_edges_carry_what_is_read_downstream():
    plan = Flow.from_toml(FLOW).check()
    carried = {edge.name: plan.carried(edge) for edge in plan.flow.edges}
    assert carried == {
        "start->front": ("samples", "sent"),
        "front->detector": ("louder", "samples", "sent"),
        "detector->errors": ("sent", "symbols"),
        "detector->trainer": ("samples", "symbols"),
        "trainer~>detector": (),
    }


def test_a_plan_knows_parents_and_children():
    plan = Flow.from_toml(FLOW).check()
    assert plan.parent("start") is None
    assert plan.parent("trainer") == Edge("detector", "trainer", "tap")
    assert [edge.target for edge in plan.children("detector")] == ["errors", "trainer"]
    assert plan.children("trainer") == []


def test_taps_are_lossless_only_on_the_way_to_a_trainer_with_a_delay():
    plan = Flow.from_toml(FLOW).check()
    assert all(plan.lossless(edge) for edge in plan.flow.edges)
    plan = Flow.from_toml(edited(("delay = 1", 'delay = "live"'))).check()
    assert [edge.name for edge in plan.flow.edges if not plan.lossless(edge)] == [
        "detector->trainer"
    ]
    more = '[blocks.more]\nuse = "decoder.pair"\n[blocks.errors]'
    path = ('"detector -> trainer"', '"detector -> more -> trainer"')
    plan = Flow.from_toml(edited(path, ("[blocks.errors]", more))).check()
    assert plan.lossless(Edge("detector", "more", "tap"))


def test_a_port_knows_the_fields_that_every_split_carries():
    port = Flow.from_toml(FLOW).check().blocks["errors"].port()
    assert port.name == "errors"
    assert port.reads == (("symbols", "symbols"), ("sent", "sent"))
    assert port.writes == ()
    assert dict(port.given) == {
        "symbols": FieldType.of("int8", "time"), "sent": FieldType.of("int8", "time"),
    }  # fmt: skip
    front = Flow.from_toml(FLOW).check().blocks["front"].port()
    assert front.writes == (("louder", FieldType.of("float32", "time")),)


def test_a_reframe_block_starts_anew():
    flow = Flow.from_toml(added('use = "frontend.recut"', "front -> more -> again -> last"))
    flow.add("again", "detector.toy")
    flow.add("last", "sink.any")
    plan = flow.check()
    assert plan.blocks["more"].reads == (("samples", "samples"),)
    assert list(plan.blocks["again"].given) == ["samples"]
    assert plan.carried(Edge("front", "more", "data")) == ("samples",)
    assert plan.carried(Edge("more", "again", "data")) == ("samples",)
    assert plan.blocks["more"].port().given == {}
    assert plan.blocks["last"].reads == (("symbols", "symbols"),)


def test_dims_and_dtypes_settle_along_the_way():
    flow = Flow.from_toml(FLOW)
    flow.set("start.words", True)
    plan = flow.check()
    assert plan.blocks["detector"].writes[0][1].type == FieldType.of("int8", "word time")


def test_optional_fields_are_taken_where_they_are_and_truth_is_not():
    flow = Flow("toy")
    flow.add("start", "source.toy")
    flow.add("front", "frontend.toy")
    flow.add("peek", "detector.peek")
    flow.connect("start -> front -> peek")
    assert flow.check().blocks["peek"].reads == (("samples", "samples"), ("scaled", "scaled"))
    flow = Flow("toy")
    flow.add("start", "source.toy")
    flow.add("peek", "detector.peek", genie=True)
    flow.connect("start -> peek")
    peek = flow.check().blocks["peek"]
    assert peek.reads == (("samples", "samples"), ("sent", "sent"))
    assert peek.genie


@pytest.mark.parametrize("use", ["encoder.toy", "channel.toy", "sink.any"])
def test_encoders_channels_and_sinks_read_truth(use):
    flow = Flow("toy")
    flow.add("start", "source.toy")
    flow.add("reader", use)
    flow.connect("start -> reader")
    assert flow.check().blocks["reader"].reads == (("sent", "sent"),)


def test_a_genie_reads_truth_and_is_marked():
    flow = Flow.from_toml(added('use = "detector.cheat"\ngenie = true', "start -> more"))
    assert flow.check().blocks["more"].genie


def test_several_sources_make_several_trees():
    flow = Flow("toy")
    for name in ("one", "two"):
        flow.add(name, "source.toy")
        flow.add(f"{name}_end", "sink.any")
        flow.connect(f"{name} -> {name}_end")
    assert list(flow.check().blocks) == ["one", "one_end", "two", "two_end"]


def test_blocks_may_be_named_into_main():
    flow = Flow.from_toml(FLOW)
    flow.assign("main", ["front"])
    assert flow.check().workers == {
        "main": ("start", "front", "errors"), "rx": ("detector",), "learn": ("trainer",),
    }  # fmt: skip


def test_the_plan_is_the_same_after_a_round_trip():
    flow = Flow.from_toml(FLOW)
    plan, again = flow.check(), Flow.from_dict(flow.to_dict()).check()
    assert plan.workers == again.workers
    for name, planned in plan.blocks.items():
        assert planned.port() == again.blocks[name].port()


BLOCKS = [
    (edited(('"source.toy"', '"source.toi"')), FlowError,
     r"4: no block named 'source.toi'; did you mean 'source.toy'\?"),
    (edited(("length = 8", "lenght = 8")), ParameterError,
     r"5: source.toy: no parameter 'lenght'; did you mean 'length'\?"),
    (edited(("length = 8", "self = 8")), ParameterError,
     r"5: source.toy: no parameter 'self'"),
    (edited(("length = 8", '"a b" = 8')), ParameterError,
     r"5: source.toy: no parameter 'a b'"),
    (edited(("length = 8", "length = 0")), ParameterError,
     r"5: source.toy: length = 0 samples, but it must be at least 1"),
    (edited(("length = 8", "length = 2\nlabel = 3")), ParameterError,
     r"6: source.toy: label = 3, but it must be a text"),
    (edited(("gain = 2.0", "taps = []")), ParameterError, r"8: frontend.toy: taps has 0 items"),
    (edited(("gain = 2.0", 'taps = [1.0, "x"]')), ParameterError,
     r"8: frontend.toy: taps\[1\] = 'x', but it must be a number"),
    (edited(("gain = 2.0", "gain = 13.0")), ParameterError,
     r"8: frontend.toy: gain must not be 13"),
    (added('use = "frontend.file"', "front -> more"), ParameterError,
     r"15: frontend.file: parameter 'path' is missing: a file"),
    (added('use = "frontend.file"\npath = "/no/such"', "front -> more"), ParameterError,
     r"15: frontend.file: .*No such file or directory: '/no/such'"),
    (added('use = "frontend.reserved"', "front -> more"), ParameterError,
     r"15: frontend.reserved has a parameter 'reads', a key that flow files keep"),
    (added('use = "source.reading"', "more -> end"), ConnectError,
     r"15: source.reading is a source, but its process reads samples"),
    (added('use = "sink.writing"', "front -> more"), ConnectError,
     r"15: sink.writing is a sink, but its process writes samples"),
    (edited(('{ samples = "louder" }', '{ sampels = "louder" }')), ConnectError,
     r"12: detector \(detector.learned\) reads no field 'sampels'; did you mean 'samples'\?"),
    (edited(('{ samples = "louder" }', '{ zz = "louder" }')), ConnectError,
     r"12: detector \(detector.learned\) reads no field 'zz' \(it reads: samples\)"),
    (edited(('{ scaled = "louder" }', '{ scald = "louder" }')), ConnectError,
     r"9: front \(frontend.toy\) writes no field 'scald'; did you mean 'scaled'\?"),
]  # fmt: skip

EDGES = [
    (edited(('"detector -> errors"', '"detector -> erors"')), FlowError,
     r"19: the flow has no block 'erors'; did you mean 'errors'\?"),
    (edited(('"detector -> errors"', '"zzz -> errors"')), FlowError,
     r"19: the flow has no block 'zzz' \(it has: start, front, detector, trainer, errors\)"),
    (edited(('"detector -> errors"', '"detector -> errors", "front -> front"')), FlowError,
     r"19: the edge front->front joins a block to itself"),
    (edited(('"detector -> errors"', '"detector -> errors", "front -> errors"')), FlowError,
     r"19: errors has two inputs, detector->errors and front->errors; a block has one"),
    (edited(('"detector -> trainer"', '"detector -> trainer", "detector -> errors"')), FlowError,
     r"21: errors has two inputs"),
    (edited(('"detector -> errors"', '"detector -> errors", "errors -> front"')), FlowError,
     r"19: the edge errors->front leaves errors \(sink.toy\), which ends its branch; connect"),
    (edited(('"detector -> errors"', '"detector -> errors", "trainer -> detector"')), FlowError,
     r'19: .*leaves trainer .*; its weights travel by weights = \["trainer ~> detector"\]'),
    (edited(('"detector -> errors"', '"detector -> errors", "front -> start"')), FlowError,
     r"19: the edge front->start enters start \(source.toy\), which starts a stream"),
    (edited(('"detector -> errors"', "")), FlowError,
     r'15: errors \(sink.toy\) has no input; connect it .* data = \["detector -> errors"\]'),
    (edited(('  "detector -> trainer",', "")), FlowError,
     r'13: trainer .* has no input; connect it .* tap = \["detector -> trainer"\]'),
    (edited(("start -> front -> detector", "front -> detector -> front")), FlowError,
     r"19: the edges front -> detector -> front go in a circle; frames only go forward"),
    (edited(("trainer ~> detector", "front ~> detector")), FlowError,
     r"23: weights come from a trainer, but front \(frontend.toy\) is none"),
    (edited(("trainer ~> detector", "trainer ~> front")), FlowError,
     r"23: front \(frontend.toy\) takes no weights"),
    (edited(("trainer ~> detector", "trainer ~> detectr")), FlowError,
     r"23: the flow has no block 'detectr'; did you mean 'detector'\?"),
    (added('use = "trainer.toy"', "detector -> more").replace(
        "weights = [", 'weights = [\n"more ~> detector",'), FlowError,
     r"26: detector takes weights from trainer and from more; a block takes them from one"),
]  # fmt: skip

WORKERS = [
    (edited(('["trainer"]', "[]")), FlowError,
     r"27: worker 'learn' runs no block; name one, such as learn = \[\"trainer\"\]"),
    (edited(('["trainer"]', "{ }")), FlowError, r"27: worker 'learn' runs no block"),
    (edited(('["trainer"]', '["triner"]')), FlowError,
     r"27: worker 'learn' runs 'triner', but the flow has no such block; did you mean 'trainer'"),
    (edited(('"detector -> trainer"', '{ path = "detector -> trainer", via = "tcp://h:70" }'),
            ('learn = ["trainer"]', ""), ('"detector"]', '"detector", "trainer"]')), FlowError,
     r"21: the edge detector->trainer has via = 'tcp://h:70', but both ends run in worker 'rx'"),
]  # fmt: skip

FIELDS = [
    (edited(('{ samples = "louder" }', '{ samples = "loud" }')), ConnectError,
     r"12: detector \(detector.learned\) reads 'loud', but nothing before it writes them "
     r"\(there are: sent, samples, louder\); did you mean 'louder'\?"),
    (edited(('"detector -> errors"', '"front -> errors"')), ConnectError,
     r"15: errors \(sink.toy\) reads 'symbols', but .*; connect detector, which writes them, "
     r"between front and errors"),
    (edited(('"detector.learned"', '"frontend.toy"'), ('  "detector -> trainer",', ""),
            ("weights = [{", "#"), ('[blocks.trainer]\nuse = "trainer.toy"\n', ""),
            ('learn = ["trainer"]', "")), ConnectError,
     r"13: errors .* reads 'symbols', .*; connect a block that writes them between detector and"),
    (added('use = "frontend.recut"', "front -> more -> last").replace(
        "[blocks.errors]", '[blocks.last]\nuse = "sink.toy"\n[blocks.errors]').replace(
        "front -> more -> last", "front -> other -> more -> last").replace(
        "[edges]", '[blocks.other]\nuse = "detector.toy"\n[edges]', 1), ConnectError,
     r"17: last .* reads 'symbols', .* \(there are: samples\); more starts new frames, which hold"),
    (added('use = "detector.cheat"', "front -> more"), ConnectError,
     r"15: more \(detector.cheat\) reads 'sent' of start, which is truth: no receiver can see it. "
     r"Only an encoder, a channel or a sink may; `genie = true` in \[blocks.more\]"),
    (added('use = "detector.peek"\nreads = { sent = "sent" }', "front -> more"), ConnectError,
     r"17: more \(detector.peek\) reads 'sent' of start, which is truth"),
    (added('use = "detector.peek"\nreads = { scaled = "nothing" }', "front -> more"), ConnectError,
     r"17: more .* reads 'nothing', but nothing before it writes them"),
    (edited(("length = 8", 'dtype = "complex64"')), ConnectError,
     r"12: detector \(detector.learned\) reads 'louder' \(as 'samples'\) of front "
     r"\(frontend.toy\): 'samples' is complex64 with dims \(time\); expected float32"),
    (added('use = "detector.words"', "front -> more"), ConnectError,
     r"15: more \(detector.words\) reads 'samples' of start \(source.toy\): 'samples' is float32 "
     r"with dims \(time\); expected float32 with dims \(word, time\)"),
    (added('use = "detector.toy"', "detector -> more"), ConnectError,
     r"15: more \(detector.toy\) writes 'symbols', which detector before it wrote already; give "
     r'it another name, such as writes = \{ symbols = "more_symbols" \}'),
    (edited(('writes = { scaled = "louder" }', 'writes = { scaled = "sent" }')), ConnectError,
     r"6: front \(frontend.toy\) writes 'sent', which start before it wrote already; .* "
     r'writes = \{ scaled = "front_scaled" \}'),
    (added('use = "decoder.pair"\nwrites = { first = "second" }', "detector -> more"),
     ConnectError, r"17: more \(decoder.pair\) writes two fields as 'second'"),
    (added('use = "frontend.loose"', "front -> more"), ConnectError,
     r"15: more \(frontend.loose\) leaves open what 'scaled' is: float32 with dims \(\*other, "),
    (added('use = "frontend.deep"', "front -> more"), ConnectError,
     r"15: more \(frontend.deep\) writes 'deep' with dims \(a, b, c, d, e\), but a field may have"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "error"), [*BLOCKS, *EDGES, *WORKERS, *FIELDS])
def test_what_does_not_fit_is_refused_with_its_line(text, kind, error):
    flow = Flow.from_toml(text, "toy.toml")
    with pytest.raises(KalvitError, match=f"^toy.toml:({error})") as caught:
        flow.check()
    assert type(caught.value) is kind
    assert str(caught.value).count("\n") < 6


def test_a_flow_without_blocks_is_refused():
    with pytest.raises(FlowError, match=r"^flow none: the flow has no blocks; add \[blocks.NAME"):
        Flow("none").check()


def test_a_delay_in_frames_needs_one_numbering():
    flow = Flow.from_toml(FLOW, "toy.toml")
    flow.blocks["front"] = Flow.from_dict(
        {"name": "x", "blocks": {"front": {"use": "frontend.recut"}}}
    ).blocks["front"]
    flow.blocks["detector"] = flow.blocks["detector"].__class__("detector", "detector.learned")
    flow.edges.remove(Edge("detector", "errors", "data"))
    del flow.blocks["errors"]
    flow.check()  # both behind the reframe block
    flow.edges[1] = Edge("start", "detector", "data")
    flow.edges[2] = Edge("front", "trainer", "tap")
    error = r'trainer counts those of front and detector those of start; use delay = "live"'
    with pytest.raises(FlowError, match=r"delay = 1 counts frames, but " + error):
        flow.check()


def pairs(count: int) -> Flow:
    """A chain of `count` blocks that write two fields each, all of which sinks behind it read."""
    flow = Flow("long")
    flow.add("start", "source.toy")
    flow.add("detector", "detector.toy")
    names = ["start", "detector", *(f"pair{number}" for number in range(count))]
    for number, name in enumerate(names[2:]):
        flow.add(name, "decoder.pair", writes={"first": f"a{number}", "second": f"b{number}"})
        flow.add(f"end{number}", "sink.any", reads={"symbols": f"a{number}", "sent": f"b{number}"})
    flow.connect(" -> ".join(names))
    for number in range(count):
        flow.connect(f"{names[-1]} -> end{number}")
    return flow


def test_edges_may_not_carry_more_fields_than_the_wire():
    plan = pairs(32).check()
    assert len(plan.carried(plan.parent("pair31"))) == 63
    with pytest.raises(ConnectError, match=r"pair32 .* read 65 fields of those before, but a fram"):
        pairs(33).check()


# Random flows


@dataclass
class Node:
    """What the model of a random flow knows of a block."""

    use: str
    parent: str | None
    reads: dict[str, str] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)  # field on the output -> its writer


@st.composite
def trees(draw) -> tuple[Flow, dict[str, Node]]:
    """A flow that fits together, and a model of it made beside."""
    flow, nodes = Flow("tree"), {}
    for number in range(draw(st.integers(1, 12))):
        name = f"b{number}"
        parents = [n for n, node in nodes.items() if not node.use.startswith("sink.")]
        parent = draw(st.sampled_from(parents)) if parents and draw(st.integers(0, 9)) else None
        if parent is None:
            flow.add(name, "source.toy")
            nodes[name] = Node("source.toy", None, out={"sent": name, "samples": name})
            continue
        given = nodes[parent].out
        floats = [f for f in given if "samples" in f or "received" in f or "scaled" in f]
        bits = [f for f in given if f not in floats]
        uses = {"sink.any": {"sent": bits, "symbols": bits}} if bits else {}
        if floats:
            uses |= {
                "frontend.toy": {"samples": floats}, "detector.toy": {"samples": floats},
                "frontend.recut": {"samples": floats},
            }  # fmt: skip
        if "sent" in given:
            uses |= {"encoder.toy": {"sent": ["sent"]}, "channel.toy": {"sent": ["sent"]}}
        use = draw(st.sampled_from(sorted(uses)))
        reads = {argument: draw(st.sampled_from(fields)) for argument, fields in uses[use].items()}
        written = {
            "frontend.toy": "scaled", "detector.toy": "symbols", "frontend.recut": "samples",
            "encoder.toy": "coded", "channel.toy": "received", "sink.any": None,
        }[use]  # fmt: skip
        renames = {written: f"{name}_{written}"} if written else {}
        flow.add(name, use, reads=reads, writes=renames)
        out = {} if use == "frontend.recut" else dict(given)
        out |= dict.fromkeys(renames.values(), name)
        nodes[name] = Node(use, parent, reads, out)
        join = draw(st.sampled_from([flow.connect, flow.tap]))
        join(f"{parent} -> {name}")
    workers = draw(st.lists(st.sampled_from(["main", "a", "b", "c"]), min_size=len(nodes)))
    for worker in ("main", "a", "b", "c"):
        own = [name for name, in_ in zip(nodes, workers, strict=False) if in_ == worker]
        if own and draw(st.booleans()):
            flow.assign(worker, own)
    return flow, nodes


quiet = settings(
    max_examples=150, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@quiet
@given(trees())
def test_random_trees_are_accepted_and_carry_what_their_readers_need(tree):
    flow, nodes = tree
    plan = flow.check()
    carried = {edge.name: set() for edge in flow.edges}
    for name, node in nodes.items():
        for wanted in node.reads.values():
            writer, at = nodes[node.parent].out[wanted], name
            while at != writer:  # the way back from the reader to the writer
                carried[plan.parent(at).name].add(wanted)
                at = nodes[at].parent
    assert {e.name: plan.carried(e) for e in flow.edges} == {
        name: tuple(sorted(fields)) for name, fields in carried.items()
    }
    places = list(plan.blocks)
    assert sorted(places) == sorted(nodes)
    for name, node in nodes.items():
        assert node.parent is None or places.index(node.parent) < places.index(name)
        assert set(plan.blocks[name].given) == set(nodes[node.parent].out if node.parent else ())
    assert sorted(n for names in plan.workers.values() for n in names) == sorted(nodes)


def block_of_line(text: str, line: int) -> str:
    """The last table header at or above a line, without a part for `reads` or `writes`."""
    headers = [row for row in text.split("\n")[:line] if row.startswith("[") and "]" in row]
    return ".".join(headers[-1].strip("[]").split(".")[:2])


@quiet
@given(trees(), st.data())
def test_one_defect_is_refused_and_its_place_named(tree, data):
    flow, nodes = tree
    table = flow.to_dict()
    table.setdefault("edges", {}).setdefault("data", [])
    fed = [name for name, node in nodes.items() if node.parent]
    sinks = [name for name, node in nodes.items() if node.use == "sink.any"]
    writers = [n for n in fed if n not in sinks and nodes[n].use != "frontend.recut"]
    defects = ["use", "parameter", "edge", "worker", "cheat"]
    defects += ["read", "no input", "two inputs"] * bool(fed) + ["sink"] * bool(sinks)
    defects += ["twice"] * bool(writers) + ["cycle"] * bool(writers)
    defect = data.draw(st.sampled_from(defects))
    name = data.draw(st.sampled_from(sorted(nodes)))
    place, said = f"blocks.{name}", name
    if defect == "use":
        table["blocks"][name]["use"] += "_x"
        said = "no block named"
    elif defect == "parameter":
        table["blocks"][name]["colour"] = "red"
        said = "no parameter 'colour'"
    elif defect == "edge":
        table["edges"]["data"].append(f"{name} -> nobody")
        place, said = "edges", "no block 'nobody'" if name not in sinks else "'nobody'"
    elif defect == "worker":
        table.setdefault("workers", {})["lost"] = ["nobody"]
        place, said = "workers", "'nobody'"
    elif defect == "cheat":
        parent = data.draw(st.sampled_from([n for n in nodes if n not in sinks]))
        truths = [f for f in nodes[parent].out if f == "sent" or f.endswith("coded")]
        field = truths[0] if truths else "sent"
        table["blocks"]["cheat"] = {"use": "detector.cheat", "reads": {"sent": field}}
        table["edges"]["data"].append(f"{parent} -> cheat")
        place, said = "blocks.cheat", "truth" if truths else f"reads '{field}', but nothing"
    elif defect == "read":
        name = data.draw(st.sampled_from(fed))
        argument = data.draw(st.sampled_from(sorted(nodes[name].reads)))
        table["blocks"][name]["reads"][argument] = "nothing"
        place, said = f"blocks.{name}", "reads 'nothing'"
    elif defect in ("no input", "cycle"):
        name = data.draw(st.sampled_from(fed if defect == "no input" else writers))
        kept = [e for e in flow.edges if e.target != name]
        table["edges"] = {"data": [f"{e.source} -> {e.target}" for e in kept]}
        place, said = f"blocks.{name}", f"{name} ({nodes[name].use}) has no input"
        if defect == "cycle":
            below = [n for n in writers if n == name or name in ancestors(nodes, n)]
            end = data.draw(st.sampled_from(below))
            table["edges"]["data"].append(f"{end} -> {name}")
            said = "in a circle" if end != name else "joins a block to itself"
            place = "edges"
    elif defect == "two inputs":
        name = data.draw(st.sampled_from(fed))
        others = [n for n in nodes if n not in (name, nodes[name].parent) and n not in sinks]
        if not others:
            return
        table["edges"]["data"].append(f"{data.draw(st.sampled_from(others))} -> {name}")
        place, said = "edges", f"{name} has two inputs"
    elif defect == "sink":
        name = data.draw(st.sampled_from(sinks))
        table["blocks"]["after"] = {"use": "sink.any"}
        table["edges"]["data"].append(f"{name} -> after")
        place, said = "edges", f"{name} (sink.any), which ends its branch"
    elif defect == "twice":
        name = data.draw(st.sampled_from(writers))
        earlier = data.draw(st.sampled_from(sorted(nodes[nodes[name].parent].out)))
        written = next(iter(table["blocks"][name]["writes"]))
        table["blocks"][name]["writes"] = {written: earlier}
        place, said = f"blocks.{name}", f"writes {earlier!r}, which"
    text = tomli_w.dumps(table)
    with pytest.raises(KalvitError, match=re.escape(said)) as caught:
        Flow.from_toml(text, "x.toml").check()
    line = int(re.match(r"x.toml:(\d+): ", str(caught.value)).group(1))
    assert block_of_line(text, line) == place


def ancestors(nodes: dict[str, Node], name: str) -> list[str]:
    found = []
    while (parent := nodes[name].parent) is not None:
        found.append(parent)
        name = parent
    return found
