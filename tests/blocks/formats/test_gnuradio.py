"""Tag headers as in gr-zeromq/lib/tag_headers.cc, and what tags say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.formats import gnuradio
from blocks.formats.gnuradio import HeaderError, Tag, read_header, write_header
from blocks.formats.pmt import dumps
from pipeline.errors import ParameterError
from pipeline.frame import StreamInfo

# built by hand: item 4096 comes first; one tag, on item 5007: key "x", value 42, set by "me"
HEAD = "f05f0100100000000000000100000000000000"
TAG = "8f1300000000000002000178030000002a0200026d65"
RAW = bytes.fromhex(TAG)[8:]
MESSAGE = bytes.fromhex(HEAD + TAG) + bytes(16)


def test_a_header_is_read():
    header = read_header(memoryview(MESSAGE))
    assert header == (4096, [Tag(5007, "x", 42, RAW)], len(MESSAGE) - 16)


def test_a_header_is_written():
    assert write_header(4096, [(5007, RAW)]) + bytes(16) == MESSAGE


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("", "there is no tag header"),
        ("f05f02" + HEAD[6:], "there is no tag header"),
        ("5ff0" + HEAD[4:], "there is no tag header"),
        (HEAD[:-2], "there is no tag header"),
        (HEAD, "it has 1 tags, but ends after 0"),
        (HEAD + TAG[:14], "it has 1 tags, but ends after 0"),
        (HEAD + TAG[:-2], "tag 0 of 1: .* past the end"),
        (HEAD[:-16] + "f" * 16 + TAG, "it has 18446744073709551615 tags, but ends after 1"),
        (HEAD + TAG[:16] + "ff" + TAG[18:], "tag 0 of 1: .* no PMT begins so"),
    ],
)
def test_what_is_no_header_is_refused(message, text):
    with pytest.raises(HeaderError, match=text):
        read_header(memoryview(bytes.fromhex(message)))


@settings(max_examples=100)
@given(st.binary(max_size=80), st.integers(0, len(MESSAGE)), st.booleans())
def test_any_bytes_give_a_header_or_an_error(some, place, inside):
    message = MESSAGE[:place] + some + (MESSAGE[place + len(some) :] if inside else b"")
    try:
        header = read_header(memoryview(message))
    except HeaderError:
        return
    assert header.size <= len(message)
    written = write_header(header.item, [(tag.item, tag.raw) for tag in header.tags])
    assert written == message[: header.size]


def tag(key, value):
    return Tag(0, key, value, b"")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rx_rate", 2e6, {"rate_hz": 2e6}),
        ("rx_rate", 48000, {"rate_hz": 48000.0}),
        ("rx_freq", -5.0, {"centre_hz": -5.0}),
        ("rx_time", (np.uint64(2), 0.25), {"epoch_utc_ns": 2_250_000_000}),
        ("rx_rate", 0.0, {}),
        ("rx_rate", float("inf"), {}),
        ("rx_rate", float("nan"), {}),
        ("rx_rate", "2e6", {}),
        ("rx_freq", None, {}),
        ("rx_time", (np.uint64(2**40), 0.25), {}),
        ("rx_time", (1, 2.0), {}),
        ("rx_time", (1, float("nan")), {}),
        ("rx_time", ("1", 0.5), {}),
        ("rx_time", (1,), {}),
        ("rx_gain", 3.0, {}),
        (np.zeros(3), 3.0, {}),
        (["rx_rate"], 3.0, {}),
    ],
)
def test_tags_say_what_the_stream_is(key, value, said):
    assert gnuradio.says(tag(key, value)) == said


def test_what_is_known_of_a_stream_becomes_tags_that_say_the_same():
    info = StreamInfo(rate_hz=2e6, centre_hz=1.09e9, epoch_utc_ns=1_700_000_000_250_000_000)
    tags = gnuradio.tags_of(info, 0)
    assert list(tags) == ["rx_time", "rx_rate", "rx_freq"]
    said = {}
    for key, value in tags.items():
        said |= gnuradio.says(tag(key, value))
    assert StreamInfo(**said) == info
    later = gnuradio.tags_of(info, 3_000_001)["rx_time"]
    assert later == (1_700_000_001, 0.7500005)
    assert dumps(later).hex().startswith("0c000000020b")  # as UHD: uint64, double


def test_what_is_not_known_is_not_said():
    assert gnuradio.tags_of(StreamInfo(), 5) == {}
    assert gnuradio.tags_of(StreamInfo(epoch_utc_ns=1), 5) == {}
    assert list(gnuradio.tags_of(StreamInfo(epoch_utc_ns=1), 0)) == ["rx_time"]


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:5555", "tcp://*:5555", "tcp://host.example:1", "tcp://[::1]:5555",
     "tcp://127.0.0.1:*", "ipc:///tmp/a", "ipc://a"],
)  # fmt: skip
def test_addresses_are_taken(address):
    gnuradio.check_address(address)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("127.0.0.1:5555", r"expected tcp://HOST:PORT, as in"),
        ("tcp://127.0.0.1", "expected tcp"),
        ("tcp://:5555", "expected tcp"),
        ("inproc://a", "expected tcp"),
        ("", "expected tcp"),
        ("ipc://", "path of 0 bytes; expected 1 to 107"),
        ("ipc://" + "a" * 108, "path of 108 bytes"),
    ],
)
def test_other_addresses_are_refused(address, text):
    with pytest.raises(ParameterError, match=text):
        gnuradio.check_address(address)
