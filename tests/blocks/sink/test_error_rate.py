import json

import numpy as np
import pytest
from scipy import stats

from blocks.sink.error_rate import MOST_BINS, Curve, ErrorRate, wilson
from pipeline.block import FieldType
from pipeline.errors import ConnectError
from pipeline.frame import FrameInfo
from pipeline.instance import drive

RNG = np.random.default_rng(11)


def flipped(sent, places):
    """`sent` with the symbols at these flat places wrong."""
    symbols = sent.copy()
    symbols.reshape(-1)[places] *= -1
    return symbols


def bpsk(*shape):
    return RNG.choice(np.array([1, -1], np.int8), shape)


def report_of(frames, **parameters):
    sink = ErrorRate(**parameters)
    drive(sink, [{"sent": sent, "symbols": symbols} for sent, symbols in frames])
    return sink.report(None)


@pytest.mark.parametrize("dims", ["data", "word data"])
def test_bits_are_compared_as_symbols_are(dims):
    bits = FieldType.of("uint8", dims)
    assert ErrorRate().narrow({"sent": bits, "symbols": bits}) == {}
    with pytest.raises(ConnectError, match="must have the same dims, of a stream or of words"):
        ErrorRate().narrow({"sent": bits, "symbols": FieldType.of("int8", "time")})


@pytest.mark.parametrize(("errors", "symbols"), [(0, 10), (3, 1000), (500, 1000), (7, 7)])
def test_interval_is_wilsons_as_scipy_gives_it(errors, symbols):
    expected = stats.binomtest(errors, symbols).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson(errors, symbols), (expected.low, expected.high), atol=1e-12)


def test_report_counts_errors_and_symbols():
    sent = bpsk(1000)
    report = report_of([(sent, flipped(sent, [0, 7, 999])), (sent, sent)])
    low, high = wilson(3, 2000)
    assert report == {
        "symbol_error_rate": 0.0015, "errors": 3, "symbols": 2000, "ci95": [low, high],
    }  # fmt: skip


def test_report_before_any_symbol_claims_nothing():
    sink = ErrorRate()
    sink.start()
    assert sink.report(None) == {
        "symbol_error_rate": 0.0, "errors": 0, "symbols": 0, "ci95": [0.0, 1.0],
    }  # fmt: skip


def test_complex_symbols_differ_if_a_sign_differs():
    sent = np.array([1 + 1j, 1 + 1j, 1 + 1j, 1 + 1j], np.complex64)
    symbols = np.array([0.1 + 0.2j, -1 + 1j, 1 - 1j, -1 - 1j], np.complex64)
    assert report_of([(sent, symbols)])["errors"] == 3


def test_pilots_are_left_out_as_if_they_had_not_been_sent():
    sent = bpsk(6, 10)
    symbols = flipped(sent, [0, 5, 12, 31, 59])
    pilot = np.array([True, False, False, True, False, False])
    sink = ErrorRate(skip=10)
    drive(sink, [{"sent": sent, "symbols": symbols, "pilot": pilot}])
    assert sink.report(None) == report_of([(sent[~pilot], symbols[~pilot])], skip=10)
    assert sink.report(None)["errors"] == 1
    assert sink.report(None)["words"] == 3


def test_pilots_must_be_words_of_what_is_compared():
    stream = FieldType.of("int8", "time")
    with pytest.raises(ConnectError, match="'pilot' is told for each word, but 'sent' is int8"):
        ErrorRate().narrow(
            {"sent": stream, "symbols": stream, "pilot": FieldType.of("bool", "word")}
        )


def test_bits_may_differ_in_dtype():
    sent = np.array([True, False, True])
    assert report_of([(sent, np.array([1, 1, 1], np.uint8))])["errors"] == 1


def test_symbols_of_another_kind_than_sent_are_refused():
    with pytest.raises(ConnectError, match="they must come from one alphabet"):
        ErrorRate().narrow(
            {"sent": FieldType.of("int8", "time"), "symbols": FieldType.of("complex64", "time")}
        )


def test_skipped_symbols_are_those_at_the_start_of_each_stream():
    sent = bpsk(10)
    sink = ErrorRate(skip=12)
    sink.start()
    wrong = flipped(sent, [1, 9])
    for stream, frames in (("a", 2), ("b", 1)):
        for _ in range(frames):
            sink.process(sent, wrong, FrameInfo(stream))
    assert sink.report(None)["errors"] == 1  # of the second frame of `a`, from symbol 12 on
    assert sink.report(None)["symbols"] == 8


def test_words_are_counted_whole_and_by_position():
    sent = bpsk(6, 5)
    report = report_of(
        [(sent[:2], flipped(sent[:2], [0, 1, 9])), (sent[2:], flipped(sent[2:], [5]))]
    )
    assert (report["words"], report["word_errors"]) == (6, 3)
    np.testing.assert_allclose(report["by_position"], np.array([2, 1, 0, 0, 1]) / 6)
    assert report["positions_per_item"] == 1


def test_a_word_that_skip_touches_is_no_word():
    sent = bpsk(4, 5)
    report = report_of([(sent, flipped(sent, [0, 7, 8, 19]))], skip=8)
    assert (report["errors"], report["symbols"]) == (2, 12)
    assert (report["words"], report["word_errors"]) == (2, 1)
    np.testing.assert_allclose(report["by_position"], [0, 0, 0, 0, 0.5])


def test_long_words_are_reported_by_groups_of_positions():
    sent = bpsk(3, 2 * MOST_BINS + 1)
    report = report_of([(sent, flipped(sent, [0, 1, 2]))])
    assert report["positions_per_item"] == 4
    assert report["by_position"][0] == 3 / 12
    assert len(report["by_position"]) == -(-(2 * MOST_BINS + 1) // 4)


def test_curve_holds_the_histogram_of_what_was_added():
    curve = Curve()
    places = np.sort(RNG.choice(10_000, 700, replace=False))
    for first, last in [(0, 1), (1, 900), (900, 901), (901, 7000), (7000, 10_000)]:
        inside = places[(places >= first) & (places < last)]
        curve.add(first, last - first, inside - first)
    edges = np.arange(0, 10_000 + curve.width, curve.width)
    errors, _ = np.histogram(places, np.r_[edges[:-1], edges[-1]])
    assert curve.width == 32
    np.testing.assert_array_equal(curve.counts[0, : curve.used], errors)
    assert curve.counts[1].sum() == 10_000
    assert set(curve.counts[1, : curve.used - 1]) == {32}
    width, counts = curve.merged(errors_wanted=10.0, least=4)
    assert counts.sum() == 10_700
    assert counts[0].sum() / counts.shape[1] >= 10.0
    assert width % 32 == 0


def test_report_does_not_depend_on_how_streams_interleave():
    frames = {stream: [bpsk(50) for _ in range(30)] for stream in "ab"}
    reports = []
    for order in ("a" * 30 + "b" * 30, "ab" * 30, "b" * 7 + "a" * 30 + "b" * 23):
        sink = ErrorRate(skip=60)
        sink.start()
        came = dict.fromkeys("ab", 0)
        for stream in order:
            n, sent = came[stream], frames[stream][came[stream]]
            marks = {"detector.version": n // 10}
            sink.process(sent, flipped(sent, [n]), FrameInfo(stream, n, 50 * n, 0, marks))
            came[stream] += 1
        reports.append(sink.report(None))
    assert reports[0] == reports[1] == reports[2]
    assert len(reports[0]["version_changes"]) == 4


def test_changes_of_a_version_are_remembered_with_their_place():
    sink = ErrorRate()
    sink.start()
    sent = bpsk(100)
    for n, version in enumerate([1, 1, 2, 2, 5]):
        marks = {"detector.version": version, "detector.locked": n}
        sink.process(sent, sent, FrameInfo("main", n, 100 * n, 0, marks))
    assert sink.report(None)["version_changes"] == [
        [200, "main", "detector", 2],
        [400, "main", "detector", 5],
    ]


@pytest.mark.parametrize(
    ("shape", "wrong"), [((5000,), [3, 70]), ((50, 40), [0, 41, 81]), ((20,), []), ((1,), [0])]
)
def test_final_report_leaves_a_picture_and_is_json(tmp_path, shape, wrong):
    sink = ErrorRate()
    sink.start()
    sent = bpsk(*shape)
    for version in (1, 2):
        sink.process(sent, flipped(sent, wrong), FrameInfo(marks={"detector.version": version}))
    report = sink.report(tmp_path)
    assert (tmp_path / report["picture"]).read_bytes().startswith(b"\x89PNG")
    assert json.loads(json.dumps(report)) == report


def test_report_of_nothing_leaves_no_picture(tmp_path):
    sink = ErrorRate()
    sink.start()
    assert "picture" not in sink.report(tmp_path)
    assert list(tmp_path.iterdir()) == []
