"""How a run looks, from summaries made by hand."""

from io import StringIO

import pytest
from rich.console import Console

from pipeline.display import View, duration, final_lines, result_lines, status_lines


def summary(seconds=10.0, frames=1000, blocks=("symbols", "detector", "errors"), **more):
    times = {"p50": 12.5, "p99": 80.0}
    return {
        "run": "toy-0a1b2c",
        "flow": "toy",
        "frames": frames,
        "seconds": seconds,
        "frames_per_s": frames / seconds if seconds else 0.0,
        "latency_us": {"p50": 900.0, "p99": 1500.0, "p999": 2.5e6},
        "blocks": {
            name: {"frames": frames, "busy_s": 0.1 * place, "us_per_frame": times}
            for place, name in enumerate(blocks)
        },
        "edges": {},
        "models": {},
        "results": {"errors": {"symbol_error_rate": 0.0125, "errors": 12345, "ci95": [0.01, 0.02]}},
        **more,
    }


def edge(**counts):
    return {"frames": 0, "bytes": 0, "lost": 0, "dropped": 0, **counts}


def drawn(view, width=100, height=24, **console):
    out = StringIO()
    Console(file=out, width=width, height=height, **console).print(view)
    return out.getvalue().rstrip("\n").split("\n")


def line_with(text, lines):
    (found,) = [line for line in lines if text in line]
    return found


def test_screen_shows_blocks_in_the_order_of_the_summary_with_their_numbers():
    lines = drawn(View(summary()))
    rows = [line.split() for line in lines if line.startswith(("symbols", "detector", "errors "))]
    assert [row[0] for row in rows] == ["symbols", "detector", "errors"]
    assert rows[1] == ["detector", "1,000", "1.0", "%", "12.5", "80.0"]
    assert "latency p50 900 us, p99 1.5 ms, p99.9 2.50 s" in "\n".join(lines)


def test_rate_is_that_of_late_and_not_of_the_whole_run():
    view = View(summary(seconds=100.0, frames=1000))
    view.show(summary(seconds=102.0, frames=1400))
    assert "1,400 frames   200 frames/s" in "\n".join(drawn(view))


def test_rate_counts_from_when_the_counts_were_made():
    view = View(summary(seconds=10.2, measured_s=10.0, frames=1000))
    view.show(summary(seconds=12.7, measured_s=12.0, frames=1400))
    assert "200 frames/s" in "\n".join(drawn(view))


def test_busy_is_that_of_late():
    before = summary(seconds=100.0)
    after = summary(seconds=102.0)
    before["blocks"]["detector"]["busy_s"] = 90.0
    after["blocks"]["detector"]["busy_s"] = 91.0
    view = View(before)
    view.show(after)
    assert "50.0 %" in line_with("detector", drawn(view))


def test_progress_and_time_left_come_from_the_frames_left():
    view = View(summary(frames=1000, seconds=10.0, left=3000))
    assert line_with("━", drawn(view)).endswith("25 %, 30 s left")


def test_progress_and_time_left_come_from_the_limit_in_seconds():
    assert line_with("━", drawn(View(summary(left=None), 40.0))).endswith("25 %, 30 s left")


def test_the_limit_that_comes_first_counts():
    view = View(summary(frames=1000, seconds=10.0, left=99_000), limit_s=20.0)
    assert line_with("━", drawn(view)).endswith("50 %, 10 s left")


def test_an_endless_run_shows_no_progress():
    assert not any("━" in line or "left" in line for line in drawn(View(summary(left=None))))


def test_before_the_first_frame_the_screen_says_what_it_waits_for():
    (starting,) = drawn(View(summary(frames=0, seconds=0.0, measured_s=0.0)))
    (waiting,) = drawn(View(summary(frames=0, seconds=3.0, measured_s=2.9)))
    assert starting.split() == ["toy-0a1b2c", "starting"]
    assert waiting.split()[1:] == ["waits", "for", "the", "first", "frame"]


def test_screen_shows_what_is_under_way_on_edges_between_workers_only():
    edges = {
        "symbols->detector": edge(frames=1000),
        "detector->errors": edge(frames=1000, bytes=2_500_000, queue=3 << 10),
    }
    lines = drawn(View(summary(edges=edges)))
    assert line_with("detector->errors", lines).split()[1:] == ["1,000", "2.5", "3", "KiB"]
    assert not any("symbols->detector" in line or "dropped" in line for line in lines)


def test_dropped_frames_of_an_edge_are_shown_where_there_are_any():
    edges = {"a->b": edge(frames=7, queue=0), "a->c": edge(frames=5, queue=0, dropped=2)}
    lines = drawn(View(summary(edges=edges)))
    assert line_with("a->b", lines).split()[-2:] == ["0", "0"]
    assert line_with("a->c", lines).split()[-2:] == ["0", "2"]


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 7, 10, 14, 24, 60])
@pytest.mark.parametrize("width", [20, 43, 80, 200])
@pytest.mark.parametrize("count", [1, 4, 70])
def test_screen_is_never_larger_than_the_terminal(width, height, count):
    names = [f"block{number}" for number in range(count)]
    many = summary(
        blocks=names,
        edges={f"{name}->x": edge(bytes=1, queue=1) for name in names},
        results={name: {"value": 1.0, "text": "words " * 10} for name in names},
        left=3,
    )
    lines = drawn(View(many), width=width, height=height)
    assert len(lines) <= max(1, height - 1)
    assert max(map(len, lines)) <= width


def test_where_blocks_do_not_fit_the_busiest_are_kept():
    names = [f"block{number}" for number in range(70)]
    lines = drawn(View(summary(blocks=names, results={})), height=12)
    kept = [line.split()[0] for line in lines if line.startswith("block") and "%" in line]
    assert kept == names[-len(kept) :]
    assert len(kept) == 7  # of 11 lines: 2 above, the titles, and how many more there are
    assert f"and {70 - len(kept)} more blocks" in lines


def test_screen_without_colours_has_no_colours(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    edges = {"a->b": edge(queue=1, lost=1)}
    text = "\n".join(drawn(View(summary(edges=edges, left=5)), force_terminal=True))
    assert "\x1b[3" not in text
    assert "\x1b[9" not in text


def test_plain_line_is_one_line_with_progress_rate_and_results():
    line = View(summary(left=3000)).plain()
    assert line == (
        "10.0 s, 25 %, 30 s left, 1,000 frames, 100 frames/s, latency p50 900 us, p99 1.5 ms, "
        "p99.9 2.50 s; errors: symbol error rate 0.0125, errors 12,345, "
        "95 % interval 0.01 ... 0.02"
    )


def test_plain_line_before_the_first_frame_says_what_it_waits_for():
    assert View(summary(frames=0, seconds=0.5, measured_s=0.0)).plain() == "starting"


def test_results_leave_out_lists_and_pictures():
    results = {"sink": {"rate": 0.5, "history": [1, 2, 3], "picture": "sink.png", "note": "fine"}}
    assert list(result_lines(summary(results=results))) == ["sink: rate 0.5, note fine"]


def test_results_say_which_weights_serve():
    model = {"name": "net", "version": 3, "swaps": 2, "refused": 1, "rolled_back": 0}
    *_, line = result_lines(summary(models={"detector": model}))
    assert line == "detector: weights net@3, 2 swaps, 1 refused, 0 rolled back"


def test_samples_that_a_source_lost_have_a_line():
    found = summary(results={})
    found["blocks"]["symbols"] |= {"gaps": 2, "lost_samples": 12345}
    found["blocks"]["detector"] |= {"gaps": 0, "lost_samples": 0}
    assert list(result_lines(found)) == ["symbols: 12,345 samples lost in 2 gaps"]


def test_final_lines_hold_totals_tables_results_and_files():
    edges = {"detector->errors": edge(frames=1000, bytes=2_500_000, queue=0)}
    lines = list(final_lines(summary(edges=edges), "runs/toy-0a1b2c", ["errors.png"]))
    assert lines[0] == "toy: 1,000 frames in 10.00 s, 100 frames/s"
    assert line_with("latency", lines).endswith("p50 900 us, p99 1.5 ms, p99.9 2.50 s")
    assert line_with("  detector  ", lines).split() == [
        "detector", "1,000", "1.0", "%", "12.5", "80.0",
    ]  # fmt: skip
    assert line_with("detector->errors", lines).split() == ["detector->errors", "1,000", "2.5"]
    assert lines[-3:] == [
        "errors: symbol error rate 0.0125, errors 12,345, 95 % interval 0.01 ... 0.02",
        "picture: runs/toy-0a1b2c/errors.png",
        "summary: runs/toy-0a1b2c/summary.json",
    ]


def test_final_lines_fit_a_terminal():
    lines = list(final_lines(summary(), "runs/toy", width=40))
    assert lines[-3:-1] == [
        "errors: symbol error rate 0.0125, errors",
        "    12,345, 95 % interval 0.01 ... 0.02",
    ]


def test_final_lines_say_that_a_run_was_interrupted():
    assert next(final_lines(summary(exit_code=130), "runs/toy")).endswith(", interrupted")


def test_final_lines_of_a_run_without_a_frame_are_two():
    nothing = summary(frames=0, seconds=0.0, results={}, exit_code=130)
    nothing["latency_us"] = {"p50": 0.0, "p99": 0.0, "p999": 0.0}
    assert list(final_lines(nothing, "runs/toy")) == [
        "toy: 0 frames in 0.00 s, interrupted", "summary: runs/toy/summary.json",
    ]  # fmt: skip


def test_status_begins_with_the_run_and_shows_its_blocks():
    lines = list(status_lines(summary(left=3000)))
    assert lines[0].startswith("toy-0a1b2c: 10.0 s, 25 %, 30 s left, 1,000 frames")
    assert "1,000" in line_with("  detector  ", lines)


@pytest.mark.parametrize(
    ("us", "text"), [(0.0, "0 us"), (999.4, "999 us"), (1.25e4, "12.5 ms"), (3.2e7, "32.00 s")]
)
def test_durations_come_in_the_unit_that_suits_them(us, text):
    assert duration(us) == text
