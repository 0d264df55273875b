"""Drawings of flows and cards of blocks."""

from __future__ import annotations

import pytest
import toy_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.draw import describe_block, draw_mermaid, draw_text
from pipeline.flow import Flow

pytestmark = pytest.mark.usefixtures("register")
register = toy_blocks.register


def learning() -> Flow:
    flow = Flow("learning")
    flow.add("start", "source.toy")
    flow.add("detector", "detector.learned")
    flow.add("cheat", "detector.cheat", genie=True, writes={"symbols": "best"})
    flow.add("cut", "frontend.recut")
    flow.add("errors", "sink.toy")
    flow.add("trainer", "trainer.toy")
    flow.add("other", "sink.any")
    flow.connect("start -> detector -> cheat -> errors")
    flow.connect("detector -> cut -> other")
    flow.tap("detector -> trainer")
    flow.feedback("trainer ~> detector", delay=2)
    return flow


def test_a_chain_is_drawn_downwards():
    flow = Flow("chain")
    flow.add("start", "source.toy")
    flow.add("channel", "channel.toy")
    flow.add("end", "sink.any")
    flow.connect("start -> channel")
    flow.tap("channel -> end")
    assert draw_text(flow.check()) == (
        "chain\n"
        "\n"
        "start    source.toy\n"
        "│ sent: int8 (time), truth\n"
        "│ samples: float32 (time) [V]\n"
        "▼\n"
        "channel  channel.toy\n"
        "┆ received: float32 (time) [V]\n"
        "▽\n"
        "end      sink.any  tap"
    )


def test_branches_workers_weights_and_genies_are_drawn():
    flow = learning()
    flow.assign("rx", ["detector"])
    assert draw_text(flow.check()) == (
        "learning\n"
        "\n"
        "start     source.toy  [main]\n"
        "│ sent: int8 (time), truth\n"
        "│ samples: float32 (time) [V]\n"
        "▼\n"
        "detector  detector.learned  [rx]  over ipc: samples, sent  trainer ~> detector (delay 2)\n"
        "│ symbols: int8 (time)\n"
        "├─▶ cheat     detector.cheat  [main]  over ipc: sent, symbols  GENIE: may read truth\n"
        "│   │ best: int8 (time)\n"
        "│   ▼\n"
        "│   errors    sink.toy  [main]\n"
        "├─▶ cut       frontend.recut  [main]  over ipc: samples  new frames\n"
        "│   │ samples: float32 (time) [V]\n"
        "│   ▼\n"
        "│   other     sink.any  [main]\n"
        "└┄▷ trainer   trainer.toy  [main]  tap  over ipc: samples, symbols  "
        "trainer ~> detector (delay 2)"
    )


def test_a_mermaid_flowchart_has_workers_as_boxes():
    flow = learning()
    flow.assign("rx", ["detector"])
    assert draw_mermaid(flow.check()) == (
        "flowchart LR\n"
        '    subgraph worker_main["worker main"]\n'
        '        block_start(["start<br/>source.toy"])\n'
        '        block_cheat["cheat<br/>detector.cheat<br/>GENIE"]\n'
        '        block_errors[["errors<br/>sink.toy"]]\n'
        '        block_cut["cut<br/>frontend.recut"]\n'
        '        block_other[["other<br/>sink.any"]]\n'
        '        block_trainer[["trainer<br/>trainer.toy"]]\n'
        "    end\n"
        '    subgraph worker_rx["worker rx"]\n'
        '        block_detector["detector<br/>detector.learned"]\n'
        "    end\n"
        '    block_start -->|"samples<br/>sent"| block_detector\n'
        '    block_detector -->|"sent<br/>symbols"| block_cheat\n'
        '    block_cheat -->|"sent<br/>symbols"| block_errors\n'
        '    block_detector -->|"samples"| block_cut\n'
        "    block_cut --> block_other\n"
        '    block_detector -.->|"tap<br/>samples<br/>symbols"| block_trainer\n'
        '    block_trainer == "weights, delay 2" ==> block_detector\n'
        "    classDef genie stroke-dasharray: 4 4\n"
        "    class block_cheat genie"
    )


def test_one_worker_is_not_drawn():
    text = draw_mermaid(learning().check()) + draw_text(learning().check())
    assert "subgraph" not in text
    assert "[main]" not in text
    assert "ipc" not in text


def test_a_tcp_edge_shows_its_address():
    flow = learning()
    flow.add("far", "sink.any")
    flow.connect("detector -> far", via="tcp://127.0.0.1:5555")
    flow.assign("away", ["far"])
    assert "[away]  over tcp://127.0.0.1:5555: sent, symbols" in draw_text(flow.check())


def test_two_sources_are_two_trees():
    flow = Flow("two")
    flow.add("a", "source.toy")
    flow.add("b", "source.toy")
    assert draw_text(flow.check()).count("source.toy") == 2


def test_a_card_tells_all_of_a_block():
    assert describe_block(toy_blocks.ToySource).lines() == [
        "source.toy: Zeros, as samples and as symbols.",
        "",
        "More text.",
        "",
        "source",
        "",
        "parameters",
        "  rate    = 0.0        a number, at least 0.0 [frames/s]",
        "      pace; 0: as fast as possible",
        "  dtype   = \"float32\"  one of 'float32', 'complex64'",
        "      of the samples",
        "  words   = false      true or false",
        "      whether there are words",
        "  length  = 4          a whole number, at least 1 [samples]",
        "      samples per frame",
        '  label   = ""         a text',
        "      any text",
        "",
        "writes",
        "  sent     int8                  (*word, time)       truth  what was sent",
        "  samples  float32 or complex64  (*word, time)  [V]         what is received",
    ]


def test_a_card_names_what_is_special():
    assert "takes weights" in describe_block(toy_blocks.Learned).lines()
    assert "sink, may read truth" in describe_block(toy_blocks.AnySink).lines()
    assert "reframe" in describe_block(toy_blocks.ToyReframe).lines()
    card = describe_block(toy_blocks.FileBlock)
    assert (card.kind, card.delayed, card.learned, card.genie) == ("block", False, False, False)
    assert "  path  required  a text" in card.lines()
    lines = describe_block(toy_blocks.Peek).lines()
    assert "  sent     int8     (*word, time)  optional" in lines
    assert "  taps  = [1.0]  a list of numbers, at least 1 item" in [
        line.replace("taps  =", "taps  =")
        for line in describe_block(toy_blocks.ToyFrontend).lines()
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12))
def test_every_block_of_any_tree_is_drawn_once(parents):
    flow = Flow("tree")
    flow.add("b0", "source.toy")
    for number, (parent, tap) in enumerate(parents, 1):
        flow.add(f"b{number}", "encoder.toy", writes={"coded": f"c{number}"})
        join = flow.tap if tap else flow.connect
        join(f"b{min(parent, number - 1)} -> b{number}")
    plan = flow.check()
    lines = draw_text(plan).splitlines()
    for number in range(1, len(parents) + 1):
        drawn = [line for line in lines if f"b{number} " in line]
        assert len(drawn) == 1
        assert drawn[0].endswith("tap") == parents[number - 1][1]
        assert sum(f"c{number}:" in line for line in lines) == 1
    chart = draw_mermaid(plan)
    assert chart.count("-->") + chart.count("-.->") == len(parents)
