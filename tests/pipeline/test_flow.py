"""Flows as data: TOML, the builder, settings, and what no flow can mean."""

from __future__ import annotations

import numpy as np
import pytest
import toy_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import catalogue
from pipeline.errors import FlowError, KalvitError
from pipeline.flow import BareWord, BlockSpec, Edge, Flow, parse_setting, parse_worker

register = toy_blocks.register

FLOW = """\
name = "toy"
doc = "a line"
seed = 7

[blocks.start]
use = "source.toy"
length = 8

[blocks.front]
use = "frontend.toy"
gain = 2.0
taps = [1.0, 0.5]
writes = { scaled = "louder" }
[blocks.detector]
use = "detector.learned"
reads = { samples = "louder" }
[blocks.trainer]
use = "trainer.toy"
[blocks.errors]
use = "sink.toy"

[edges]
data = [
  "start -> front -> detector",
  "detector -> errors",
]
tap = ["detector -> trainer"]
weights = [{ path = "trainer ~> detector", delay = 1 }]

[workers]
rx = ["front", "detector"]
learn = { blocks = ["trainer"] }
"""


def edited(old: str, new: str) -> str:
    assert old in FLOW
    return FLOW.replace(old, new, 1)


def test_a_file_is_read_as_it_stands():
    flow = Flow.from_toml(FLOW, "toy.toml")
    assert (flow.name, flow.doc, flow.seed) == ("toy", "a line", 7)
    assert flow.blocks["front"] == BlockSpec(
        "front", "frontend.toy", {"gain": 2.0, "taps": [1.0, 0.5]}, {}, {"scaled": "louder"}
    )
    assert flow.blocks["detector"].reads == {"samples": "louder"}
    assert flow.edges == [
        Edge("start", "front", "data"),
        Edge("front", "detector", "data"),
        Edge("detector", "errors", "data"),
        Edge("detector", "trainer", "tap"),
        Edge("trainer", "detector", "weights", 1),
    ]
    assert [edge.name for edge in flow.edges][-2:] == ["detector->trainer", "trainer~>detector"]
    assert flow.workers == {"rx": ("front", "detector"), "learn": ("trainer",)}


def test_the_builder_makes_what_the_file_says():
    flow = Flow("toy", doc="a line", seed=7)
    flow.add("start", "source.toy", length=8)
    writes = {"scaled": "louder"}
    flow.add("front", "frontend.toy", gain=2.0, taps=np.array([1.0, 0.5]), writes=writes)
    flow.add("detector", "detector.learned", reads={"samples": "louder"})
    flow.add("trainer", "trainer.toy")
    flow.add("errors", "sink.toy")
    flow.tap("detector -> trainer")
    flow.feedback("trainer ~> detector", delay=1)
    flow.connect("start -> front -> detector -> errors")
    flow.assign("rx", ["front", "detector"])
    flow.assign("learn", ["trainer"])
    assert flow == Flow.from_toml(FLOW)
    assert flow != Flow("toy")


def test_dict_and_file_give_the_flow_back(tmp_path):
    flow = Flow.from_toml(FLOW)
    assert Flow.from_dict(flow.to_dict()) == flow
    flow.save(tmp_path / "saved.toml")
    again = Flow.load(tmp_path / "saved.toml")
    assert again == flow
    assert again.to_dict() == flow.to_dict()
    assert again.path == tmp_path / "saved.toml"


def test_edges_are_saved_as_paths():
    flow = Flow.from_toml(FLOW)
    flow.connect("front -> other", via="tcp://127.0.0.1:5555")
    flow.connect("other -> last")
    assert flow.to_dict()["edges"] == {
        "data": [
            "start -> front -> detector -> errors",
            {"path": "front -> other", "via": "tcp://127.0.0.1:5555"},
            "other -> last",
        ],
        "tap": ["detector -> trainer"],
        "weights": [{"path": "trainer ~> detector", "delay": 1}],
    }
    assert Flow.from_dict(flow.to_dict()) == flow


def test_weights_edges_are_live_unless_said():
    flow = Flow.from_toml(edited(", delay = 1", ""))
    assert flow.edges[-1].delay == "live"
    flow = Flow.from_toml(
        edited('{ path = "trainer ~> detector", delay = 1 }', '"trainer~>detector"')
    )
    assert flow.edges[-1] == Edge("trainer", "detector", "weights", "live")


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
names = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
values = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
params = st.dictionaries(
    names.filter(lambda name: name not in ("use", "reads", "writes", "genie")), values, max_size=3
)
specs = st.tuples(params, st.dictionaries(names, names, max_size=2), st.booleans())


@settings(max_examples=60, deadline=None)
@given(words, st.integers(0, 2**63 - 1), st.dictionaries(names, specs, min_size=2, max_size=5),
       st.data())  # fmt: skip
def test_any_flow_survives_saving(tmp_path_factory, doc, seed, blocks, data):
    flow = Flow("any", doc=doc, seed=seed)
    for name, (values, renames, genie) in blocks.items():
        table = {"use": "some.block", "reads": renames, "genie": genie, **values}
        flow.add_table(name, table)
    pairs = st.tuples(st.sampled_from(sorted(blocks)), st.sampled_from(sorted(blocks)))
    for source, target in data.draw(st.lists(pairs, unique=True, max_size=5)):
        kind = data.draw(st.sampled_from(["connect", "tap", "feedback"]))
        getattr(flow, kind)(f"{source} {'~>' if kind == 'feedback' else '->'} {target}")
    for number, name in enumerate(data.draw(st.sets(st.sampled_from(sorted(blocks))))):
        flow.assign(f"w{number}", [name])
    assert Flow.from_dict(flow.to_dict()) == flow
    path = tmp_path_factory.getbasetemp() / "any.toml"
    flow.save(path)
    again = Flow.load(path)
    assert again == flow
    assert again.edges == flow.edges
    assert list(again.blocks) == list(flow.blocks)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (edited('name = "toy"\n', ""), r"toy.toml: a flow needs a name"),
        (edited('"toy"', '"Toy"'), r"toy.toml:1: flow name 'Toy' must be small letters"),
        (edited('"a line"', "3"), r"toy.toml:2: doc = 3, but it must be a text"),
        (edited("seed = 7", "seed = -1"), r"toy.toml:3: seed = -1, but it must be a whole number"),
        (edited("seed = 7", "seed = true"), r"toy.toml:3: seed = True"),
        (edited("seed = 7", "sed = 7"), r"toy.toml:3: unknown key 'sed'; did you mean 'seed'\?"),
        (edited("[edges]", "[egdes]"), r"toy.toml:22: unknown key 'egdes'; did you mean 'edges'"),
        ('name = "toy"\nblocks = 3', r"toy.toml:2: blocks = 3, but it must be a table \[blocks\]"),
        ('name = "toy"\nworkers = []', r"toy.toml:2: workers = \[\], but it must be a table"),
        (edited("[blocks.start]\nuse", "[blocks]\nstart = 3\n[blocks.other]\nuse"),
         r"toy.toml:6: blocks.start = 3, but it must be a table \[blocks.start\]"),
        (edited('[blocks.start]\nuse = "source.toy"', "[blocks.start]"),
         r"toy.toml:5: block 'start' has no `use`"),
        (edited('"source.toy"', "5"), r"toy.toml:6: use = 5, but it must be the name of a block"),
        (edited("[blocks.start]", "[blocks.Start]"), r"toy.toml:5: block name 'Start' must be"),
        (edited("length = 8", "genie = 1"), r"toy.toml:7: genie = 1, but it must be true or false"),
        (edited("length = 8", "reads = 1"), r"toy.toml:7: blocks.start.reads = 1, but .* a table"),
        (edited('"louder" }\n[', '"Loud" }\n['), r"toy.toml:13: field name 'Loud' must be"),
        (edited("length = 8", "length = 1979-05-27"), r"toy.toml:7: length is a date; expected a"),
        (edited("tap = [", "taps = ["), r"toy.toml:27: unknown key 'taps'; did you mean 'tap'"),
        (edited('tap = ["detector -> trainer"]', 'tap = "detector -> trainer"'),
         r'toy.toml:27: tap = .* must be a list, such as tap = \["a -> b"\]'),
        (edited('"detector -> errors"', "3"), r'toy.toml:25: 3 is no edge; write "a -> b"'),
        (edited('"detector -> errors"', "{ via = 3 }"), r"toy.toml:25: \{'via': 3\} is no edge"),
        (edited("detector -> errors", "detector - > errors"),
         r'toy.toml:25: cannot read the edge .* write "a -> b -> c"'),
        (edited("detector -> errors", "detector -> "), r"toy.toml:25: cannot read the edge"),
        (edited("detector -> errors", "errors"), r"toy.toml:25: cannot read the edge"),
        (edited('"detector -> errors"', "{ path = 3 }"), r"toy.toml:25: cannot read the edge 3"),
        (edited("detector -> errors", "trainer ~> errors"), r"toy.toml:25: .*'~>' is for weights"),
        (edited("detector -> errors", "start -> front"),
         r"toy.toml:25: there is an edge start -> front already"),
        (edited("trainer ~> detector", "trainer -> detector"),
         r'toy.toml:28: cannot read the edge .* write "trainer ~> detector"'),
        (edited("trainer ~> detector", "trainer ~> detector ~> front"),
         r"toy.toml:28: .* weights go from one trainer to one block"),
        (edited("delay = 1", "delay = 0"), r"toy.toml:28: .* delay = 0, but it must be a whole"),
        (edited("delay = 1", "delay = true"), r"toy.toml:28: .* delay = True"),
        (edited("delay = 1", 'delay = "later"'), r'toy.toml:28: .* at least 1, or "live"'),
        (edited("delay = 1", "dely = 1"), r"toy.toml:28: unknown key 'dely'; did you mean 'delay'"),
        (edited('"detector -> errors"', '{ path = "detector -> errors", delay = 1 }'),
         r"toy.toml:25: unknown key 'delay'; expected one of: path, via"),
        (edited('"detector -> errors"', '{ path = "detector -> errors", via = "ipc://x" }'),
         r'toy.toml:25: .* via = .ipc://x., but it must be an address such as "tcp://'),
        (edited('"detector -> errors"', '{ path = "detector -> errors", via = "tcp://h:70000" }'),
         r"toy.toml:25: .* via = .tcp://h:70000."),
        (edited('"detector -> errors"', '{ path = "detector -> errors", via = 3 }'),
         r"toy.toml:25: .* via = 3, but"),
        (edited('"start -> front -> detector"',
                '{ path = "start -> front -> detector", via = "tcp://h:70" }'),
         r"toy.toml:24: .* an edge with `via` joins two blocks, not 3"),
        (edited('"start -> front -> detector",\n  "detector -> errors"',
                '{ path = "start -> front", via = "tcp://h:70" },\n'
                '{ path = "front -> detector", via = "tcp://h:70" }'),
         r"toy.toml:25: tcp://h:70 serves the edge start->front already"),
        (edited("rx = [", "Rx = ["), r"toy.toml:31: worker name 'Rx' must be small letters"),
        (edited('["front", "detector"]', '"front"'),
         r"toy.toml:31: worker 'rx' = 'front', but it must be a list of blocks, such as rx = \["),
        (edited('["front", "detector"]', "[1]"), r"toy.toml:31: worker 'rx' = \[1\], but"),
        (edited('{ blocks = ["trainer"] }', '{ blocks = ["trainer"], host = "far" }'),
         r"toy.toml:32: worker 'learn' on another host is not built yet; leave `host` out"),
        (edited('{ blocks = ["trainer"] }', '{ block = ["trainer"] }'),
         r"toy.toml:32: unknown key 'block'; did you mean 'blocks'\?"),
        (edited('["trainer"]', '["front"]'),
         r"toy.toml:32: block 'front' is in worker 'rx' already; name it once"),
        (edited('["trainer"]', '["trainer", "trainer"]'), r"toy.toml:32: block 'trainer' is in"),
        (edited('doc = "a line"', 'doc = "a line'), r"toy.toml:2: no TOML: illegal character"),
        (edited("[edges]", "[edges"), r"toy.toml:22: no TOML: expected ']'"),
        (edited("seed = 7", "seed = 7\nseed = 8"), r"toy.toml:4: no TOML: cannot overwrite"),
        ("x = [", r"toy.toml:1: no TOML: invalid value"),
        ("x = " + "[" * 5000, r"toy.toml: lists or tables are nested too deep"),
    ],
)  # fmt: skip
def test_what_no_flow_can_mean_is_refused_with_its_line(text, error):
    with pytest.raises(FlowError, match=f"^{error}") as caught:
        Flow.from_toml(text, "toy.toml")
    assert str(caught.value).count("\n") < 6


def test_a_flow_without_a_file_is_called_by_its_name():
    flow = Flow("toy")
    with pytest.raises(FlowError, match=r"^flow toy: block name 'X' must be"):
        flow.add("X", "source.toy")
    flow.add("x", "source.toy")
    with pytest.raises(FlowError, match=r"^flow toy: there is a block 'x' already"):
        flow.add("x", "source.toy")
    with pytest.raises(FlowError, match=r"^flow toy: length = None, which no flow file can hold"):
        flow.add("y", "source.toy", length=None)
    with pytest.raises(FlowError, match=r"^flow toy: length is a object; expected a number"):
        flow.add("y", "source.toy", length=object())
    with pytest.raises(FlowError, match=r"flow name 'to y' must be"):
        Flow("to y")
    with pytest.raises(FlowError, match=r"seed = 1.5, but it must be"):
        Flow("toy", seed=1.5)


def test_errors_show_long_values_cut():
    with pytest.raises(FlowError, match=r"doc = \[0, 0, .* \.\.\. .*0, 0\], but it must") as caught:
        Flow.from_toml(f'name = "x"\ndoc = {[0] * 1000}', "toy.toml")
    assert len(str(caught.value)) < 200


def test_a_seed_that_was_set_later_is_checked(register):
    flow = Flow.from_toml(FLOW, "toy.toml")
    flow.seed = -1
    with pytest.raises(FlowError, match=r"seed = -1, but it must be a whole number"):
        flow.check()


# Loading


def test_ready_flows_are_found_by_name():
    flow = Flow.load("isi_viterbi")
    assert flow.name == "isi_viterbi"
    assert flow.path == catalogue.flows()["isi_viterbi"]
    with pytest.raises(FlowError, match=r"no flow named 'isi_viterby'; did you mean 'isi_viterbi'"):
        Flow.load("isi_viterby")
    with pytest.raises(FlowError, match=r"no flow named 'zzz' \(there are: .*isi_viterbi"):
        Flow.load("zzz")


def test_files_are_read_or_refused_by_name(tmp_path):
    (tmp_path / "receiver.toml").write_text(FLOW)
    with pytest.raises(FlowError, match=r"reciever.toml: no such file; did you mean 'receiver.to"):
        Flow.load(str(tmp_path / "reciever.toml"))
    with pytest.raises(FlowError, match=r"cannot be read: Is a directory"):
        Flow.load(tmp_path)
    (tmp_path / "marked.toml").write_text(FLOW, encoding="utf-8-sig", newline="\r\n")
    assert Flow.load(tmp_path / "marked.toml") == Flow.from_toml(FLOW)
    (tmp_path / "bad.toml").write_bytes(b'name = "x"\ndoc = "\xff"\n')
    with pytest.raises(FlowError, match=r"bad.toml:2: a flow file is UTF-8 text"):
        Flow.load(tmp_path / "bad.toml")
    with pytest.raises(FlowError, match=r"x.toml: cannot be written: No such file"):
        Flow.from_toml(FLOW).save(tmp_path / "missing" / "x.toml")


# Settings


def test_a_setting_is_a_toml_value():
    assert parse_setting("channel.snr_db=8.0") == ("channel.snr_db", 8.0)
    assert parse_setting(" a.b = [1, 2]") == ("a.b", [1, 2])
    assert parse_setting('a.b="x=y"') == ("a.b", "x=y")
    assert parse_setting("a.b=true") == ("a.b", True)
    key, value = parse_setting("a.path=recordings/x.cu8")
    assert (key, value) == ("a.path", "recordings/x.cu8")
    assert isinstance(value, BareWord)
    assert parse_setting("a.b=1\nc=2") == ("a.b", BareWord("1\nc=2"))


@pytest.mark.parametrize("text", ["snr=8", "a.b", "a.b.c=1", "=3", "a.=3", ".b=3", "a b.c=3"])
def test_a_setting_that_names_no_parameter_is_refused(text):
    with pytest.raises(FlowError, match=r"write BLOCK.PARAMETER=VALUE, such as channel.snr_db"):
        parse_setting(text)


def test_a_setting_without_a_value_is_refused():
    with pytest.raises(FlowError, match=r"there is no value after '='; an empty text is \"\""):
        parse_setting("a.b=")


@given(st.text(max_size=30))
def test_any_text_is_a_setting_or_a_flow_error(text):
    try:
        key, _ = parse_setting("a.b=" + text)
    except FlowError:
        return
    assert key == "a.b"


def test_settings_replace_parameters(register):
    flow = Flow.from_toml(FLOW, "toy.toml")
    flow.set("start.length", 16)
    flow.set(*parse_setting("front.gain=3.5"))
    flow.set(*parse_setting("start.label=some text"))
    flow.set(*parse_setting("start.dtype=float32"))
    assert flow.blocks["start"].params == {"length": 16, "label": "some text", "dtype": "float32"}
    assert type(flow.blocks["start"].params["label"]) is str
    plan = flow.check()
    assert plan.blocks["front"].block.gain == 3.5


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("strat.length=1", r"setting 'strat.length': flow toy has no block .* mean 'start'\?"),
        ("zz.length=1", r"flow toy has no block 'zz' \(it has: start, front, detector, trainer, e"),
        ("start.use=1", r"'use' can only be set in the flow file"),
        ("start.length=eight", r"^toy.toml, setting start.length: eight is no TOML value; a text "
         r"needs quotes: 'start.length=\"eight\"'"),
        ("start.words=True", r"True is no TOML value; write true"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(register, setting, error):
    flow = Flow.from_toml(FLOW, "toy.toml")
    with pytest.raises(FlowError, match=error):
        flow.set(*parse_setting(setting))


def test_a_bad_setting_is_blamed_by_the_check(register):
    for setting, error in [
        ("start.length=0", r"^toy.toml, setting start.length: source.toy: length = 0 samples, but"),
        ("start.lenght=3", r"^toy.toml, setting start.lenght: .* did you mean 'length'"),
        ("start.lenght=x", r"^toy.toml, setting start.lenght: .* did you mean 'length'"),
        ("front.gain=13.0", r"^toy.toml, setting front.gain: frontend.toy: gain must not be 13"),
    ]:
        flow = Flow.from_toml(FLOW, "toy.toml")
        flow.set(*parse_setting(setting))
        with pytest.raises(KalvitError, match=error):
            flow.check()


def test_a_bare_word_for_a_block_that_is_not_there_names_it(register):
    flow = Flow.from_toml(edited('"source.toy"', '"source.toi"'), "toy.toml")
    with pytest.raises(FlowError, match=r"^toy.toml:6: no block named 'source.toi'; did you mean"):
        flow.set("start.label", BareWord("x"))


# Workers


def test_assigning_takes_blocks_from_where_they_ran():
    flow = Flow.from_toml(FLOW)
    flow.assign(*parse_worker("alone=front"))
    assert flow.workers == {"rx": ("detector",), "learn": ("trainer",), "alone": ("front",)}
    flow.assign("rest", ["detector", "errors"])
    assert flow.workers == {
        "learn": ("trainer",), "alone": ("front",), "rest": ("detector", "errors"),
    }  # fmt: skip
    flow.assign("rest", ["errors"])
    assert flow.workers["rest"] == ("errors",)


@pytest.mark.parametrize("text", ["rx", "rx=", "=a", "Rx=a", "rx=a,,b", "rx=a;b"])
def test_a_worker_that_cannot_be_read_is_refused(text):
    with pytest.raises(FlowError, match=r"write NAME=BLOCK,BLOCK, such as rx=detector"):
        parse_worker(text)
    with pytest.raises(FlowError, match=r"worker name 'R x' must be"):
        Flow("toy").assign("R x", ["a"])


def test_sizes_of_the_edges_are_read_kept_and_checked():
    flow = Flow.from_toml(edited("[edges]\n", "[edges]\nwindow = 4096\nframe_cap = 65536\n"))
    assert (flow.window, flow.frame_cap) == (4096, 65536)
    again = Flow.from_dict(flow.to_dict())
    assert (again.window, again.frame_cap) == (4096, 65536)
    assert "window" not in Flow.from_toml(FLOW).to_dict()["edges"]


@pytest.mark.parametrize("value", ["0", "true", '"8 MiB"', "1.5"])
def test_a_size_of_the_edges_that_is_no_number_of_bytes_is_refused(value):
    text = edited("[edges]\n", f"[edges]\nwindow = {value}\n")
    with pytest.raises(FlowError, match=r"toy\.toml:23: window = .* whole number of bytes"):
        Flow.from_toml(text, "toy.toml")
