"""When a flow is held to stand still, and when not."""

from __future__ import annotations

import pytest

from pipeline.standstill import QUIET, Standstill

WAITS = {"block": "learned", "delay": 1, "stream": "main", "seq": 7, "after": 6}


def status(frames=6, sent=8, received=8, waits=(), holds=None, held_up=()):
    return {
        "blocks": {"learned": {"frames": frames}},
        "edges": {"a->b": {"frames": sent}, "b->c": {"frames": received}},
        "waits": list(waits), "holds": holds or {}, "held_up": list(held_up),
    }  # fmt: skip


def quiet(times: int = QUIET + 1, **rx) -> Standstill:
    found = Standstill()
    for _ in range(times):
        found.note("rx", status(waits=[WAITS], **rx))
        found.note("learn", status())
    return found


def test_a_flow_stands_still_once_every_worker_has_been_quiet_while_frames_wait():
    assert quiet(QUIET).error(["rx", "learn"]) == ""
    assert quiet(holds={"later": [5, 6]}).error(["rx", "learn"]) == (
        "learned: frame 7 waits for the weights after frame 6, which later holds back; set the "
        "delay of the feedback edge above 1, or shorten the decision delay between learned and "
        "its trainer"
    )
    assert "which has not reached the trainer" in quiet().error(["rx", "learn"])


def test_a_flow_in_which_nothing_waits_may_be_quiet_for_ever():
    found = Standstill()
    for _ in range(10 * QUIET):
        found.note("rx", status())
    assert found.error(["rx"]) == ""


@pytest.mark.parametrize(
    "change", [{"frames": 7}, {"sent": 9}, {"received": 9}, {"waits": []}], ids=str
)
def test_whatever_moves_anywhere_starts_the_count_anew(change):
    found = quiet()
    found.note("learn" if "waits" not in change else "rx", status(**{"waits": (), **change}))
    assert found.error(["rx", "learn"]) == ""
    found.note("learn", status(**{k: v for k, v in change.items() if k != "waits"}))
    found.note("rx", status(waits=[WAITS]))
    assert found.error(["rx", "learn"]) == ""


def test_a_worker_that_computes_says_nothing_and_is_waited_for():
    found = quiet()
    found.note("learn", status(frames=7))  # it took a frame, and is at the next
    for _ in range(10 * QUIET):
        found.note("rx", status(waits=[WAITS]))
    assert found.error(["rx", "learn"]) == ""
    assert found.error(["rx"]) != ""  # but for one that has ended


def test_a_frame_under_way_is_waited_for_unless_its_receiver_is_held_up():
    late = Standstill()
    held = Standstill()
    for _ in range(QUIET + 1):
        late.note("main", {**status(), "edges": {"main->rx": {"frames": 9}}})
        late.note("rx", {**status(waits=[WAITS]), "edges": {"main->rx": {"frames": 8}}})
        held.note("main", {**status(), "edges": {"main->rx": {"frames": 9}}})
        held.note("rx", {**status(waits=[WAITS], held_up=["main->rx"]),
                         "edges": {"main->rx": {"frames": 8}}})  # fmt: skip
    assert late.error(["main", "rx"]) == ""
    assert held.error(["main", "rx"]) != ""
