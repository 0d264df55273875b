"""Mode S from samples as they come, good and bad: after bad ones the rest of the stream goes on."""

import json
import re
import signal
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from mode_s_air import envelope, squitter
from rtl_tcp_server import HEADER, Server, sending

from pipeline.errors import RunError
from pipeline.flow import Flow
from pipeline.local import run

RATE_HZ = 2.0e6
COUNT, STEP = 20, 1000  # messages, and samples from one to the next
RNG = np.random.default_rng(40)
BITS = [squitter(RNG, 0x400000 + number) for number in range(COUNT)]


def air():
    """Samples (COUNT * STEP,) complex64 with a message from 100 samples after each step on."""
    noise = RNG.normal(0.0, 0.01, (COUNT * STEP, 2)) @ [1.0, 1j]
    for number, bits in enumerate(BITS):
        begin = number * STEP + 100
        noise[begin : begin + 300] += 0.5 * envelope(bits, 0.3, RATE_HZ, 300)
    return noise.astype(np.complex64)


AIR = air()
CU8 = np.rint(AIR.view(np.float32) * 127.5 + 127.5).clip(0, 255).astype(np.uint8)


def receiver(use="source.recording", **values):
    flow = Flow("receiver")
    flow.add("source", use, **values)
    flow.add("magnitude", "frontend.magnitude")
    flow.add("detector", "detector.modes")
    flow.add("decoder", "decoder.modes")
    flow.add("counts", "sink.modes_messages")
    flow.connect("source -> magnitude -> detector -> decoder -> counts")
    return flow


def counted(folder, samples, name, rate_hz=RATE_HZ):
    """What the receiver finds in a file of these samples."""
    samples.tofile(folder / name)
    flow = receiver(path=str(folder / name), rate_hz=rate_hz, length=700)
    return run(flow)["results"]["counts"]


def test_all_is_found_in_good_samples(tmp_path):
    assert counted(tmp_path, CU8, "good.cu8")["messages"] == COUNT


@pytest.mark.parametrize("wrong", [np.nan, np.inf, complex(0.0, -np.inf)])
def test_samples_that_are_no_numbers_cost_the_messages_they_hit(tmp_path, wrong):
    samples = AIR.copy()
    samples[5 * STEP + 150] = wrong  # in the sixth message
    samples[8 * STEP + 900] = wrong  # between two
    assert counted(tmp_path, samples, "air.cf32")["messages"] == COUNT - 1


@pytest.mark.parametrize("value", [0, 127, 128, 255])
def test_one_value_all_along_holds_nothing_and_hides_nothing_after_it(tmp_path, value):
    dead = np.full(20_000, value, np.uint8)
    assert counted(tmp_path, dead, "dead.cu8")["messages"] == 0
    assert counted(tmp_path, np.append(dead, CU8), "both.cu8")["messages"] == COUNT


@pytest.mark.parametrize("name", ["as.cs16", "as.cf32", "as.cs8"])
def test_samples_of_another_format_than_was_declared_give_no_false_messages(tmp_path, name):
    assert counted(tmp_path, CU8, name)["messages"] == 0


def test_a_rate_that_was_declared_wrong_gives_no_false_messages_or_is_refused(tmp_path):
    assert counted(tmp_path, CU8, "air.cu8", 2.4e6)["messages"] == 0
    with pytest.raises(RunError, match=r"the stream has 1e\+06 Hz; expected 2e\+06 Hz or 2\.4e"):
        counted(tmp_path, CU8, "air.cu8", 1e6)


def test_the_live_flow_counts_messages_and_sends_them_out():
    commands: list[bytes] = []
    with sending(CU8.tobytes(), commands) as server:
        flow = Flow.load("modes_live")
        flow.set("receiver.connect", server.address)
        flow.set("receiver.length", 1000)
        for feed in ("avr", "beast", "sbs"):
            assert flow.blocks[feed].params["listen"].startswith("127.0.0.1:3000")
            flow.set(f"{feed}.listen", ":0")
        results = run(flow, frames=COUNT)["results"]
    assert struct.pack(">BI", 0x01, 1_090_000_000) in commands
    assert results["counts"]["messages"] == COUNT
    assert results["avr"]["messages"] == results["beast"]["messages"] == COUNT
    # random contents: some have type codes without a line
    assert 0 < results["sbs"]["messages"] <= COUNT


def test_a_receiver_that_goes_away_in_mid_stream_costs_what_is_counted():
    # within the message after the tenth, and inside a sample
    part = CU8[: 2 * (10 * STEP + 150) + 1].tobytes()

    def serve(connection, number):
        connection.sendall(HEADER + (part if number == 0 else CU8.tobytes()))
        if number:
            server.closed.wait(20)

    with Server(serve) as server:
        flow = receiver("source.rtl_tcp", connect=server.address, length=1000, frames=31)
        found = run(flow)
    assert found["results"]["counts"]["messages"] == 10 + COUNT
    source = found["blocks"]["source"]
    assert source["gaps"] >= 1
    # a second try comes after 0.1 s
    assert 0.1 * RATE_HZ <= source["lost_samples"] <= 10.0 * RATE_HZ


def test_ctrl_c_ends_a_live_flow_in_order_and_garbage_at_its_port_changes_nothing(tmp_path):
    def serve(connection, number):
        connection.sendall(HEADER)
        while not server.closed.wait(0.02):
            connection.sendall(CU8.tobytes())  # 10 ms

    with Server(serve) as server, socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        holder.close()
        flow = receiver("source.rtl_tcp", connect=server.address)
        flow.add("avr", "sink.avr", listen=f":{port}")
        flow.connect("decoder -> avr")
        flow.save(tmp_path / "receiver.toml")
        command = [sys.executable, "-m", "pipeline", "run", str(tmp_path / "receiver.toml")]
        process = subprocess.Popen(
            [*command, "--json", str(tmp_path / "summary.json")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            reader = connected(port)
            reader.sendall(b"\x00\x1a*garbage;\r\n" * 1000)
            text = b""
            while text.count(b"\n") < 3 * COUNT:
                text += reader.recv(1 << 16)
            process.send_signal(signal.SIGINT)
            while part := reader.recv(1 << 16):
                text += part
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 130, out
    assert "Traceback" not in out
    result = json.loads((tmp_path / "summary.json").read_text())["results"]["avr"]
    lines = text.decode().splitlines()
    assert all(re.fullmatch(r"\*8D[0-9A-F]{26};", line) for line in lines)
    assert result["lost"] == 0
    assert result["connections"] == 1
    assert 3 * COUNT <= len(lines) == result["sent"] <= result["messages"]


def connected(port):
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 20)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
