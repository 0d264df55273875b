"""What a run does when something goes wrong in it or around it."""

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import faults
import pytest
import zmq
from faults import BLOCKS, REPOSITORY, THREE, Run, gone, wait_until

from pipeline import catalogue, roots, rundir, supervisor
from pipeline.errors import RunError
from pipeline.flow import Flow
from pipeline.frame import Frame, Kind
from pipeline.limits import FRAME_CAP
from pipeline.roots import Limits
from pipeline.rundir import RunDir
from pipeline.supervisor import Patience, Supervisor
from pipeline.transport.edge import Receiver
from pipeline.transport.sockets import bind, connect, data_socket
from pipeline.wire import Codec

# the window starts above 0.05 s (bench/faults.py has the whole of it): a busy machine may take
# so long until Python runs the first line of ours
DRAW = random.Random(2)
DELAYS = sorted(DRAW.uniform(0.15, 2.0) for _ in range(6))


@pytest.fixture
def place(monkeypatch):
    with faults.place() as here:
        monkeypatch.setenv("KALVIT_RUNS", str(here.runs))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(here.path))
        yield here
        assert here.leftovers() == []


def begin(place, *settings, workers=1, text=faults.FLOW, stdout=None):
    """Start a flow as a user does."""
    arguments = [word for setting in settings for word in ("--set", setting)]
    if workers == 3:
        arguments += THREE
    return Run.start(
        place, str(place.flow(text)), "--blocks", str(BLOCKS), *arguments, stdout=stdout
    )


def supervise(place, settings, *, workers=1, frames=0, on_status=None, patience=None):
    """Run a flow under a supervisor in this process."""
    catalogue.load_file(BLOCKS)
    flow = Flow.load(place.flow())
    for key, value in settings.items():
        flow.set(key, value)
    if workers == 3:
        flow.assign("middle", ["middle"])
        flow.assign("end", ["count"])
    boss = Supervisor(flow.check(), limits=Limits(frames), block_files=[BLOCKS], patience=patience)
    return boss.run(on_status)


# signals


@pytest.mark.parametrize(("delay", "workers"), list(zip(DELAYS, (1, 3) * 3, strict=True)))
def test_ctrl_c_ends_a_run_in_time_and_leaves_nothing(delay, workers):
    found = faults.interrupt(delay, workers)
    assert found.faults(15.0) == [], found.text  # bench.faults holds it to 3 s


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_sources_and_what_they_sent_is_still_counted(place, number):
    with begin(place, workers=3) as run:
        run.running(3)
        run.process.send_signal(number)
        assert run.end() < 15.0
        assert run.process.returncode == 128 + number
        assert "Traceback" not in run.text()
        summary = run.summary()
        assert summary["exit_code"] == 128 + number
        assert summary["results"]["count"]["frames"] == summary["frames"] > 0
        assert {edge["lost"] for edge in summary["edges"].values()} == {0}


def test_ctrl_c_waits_for_pictures_once_nothing_is_under_way(place):
    settings = ('count.how="dawdle"', "count.at=0", 'count.where="last report"')
    with begin(place, *settings, "source.rate=50") as run:
        run.running(1)
        run.process.send_signal(signal.SIGINT)
        assert run.end() > 2.0  # longer than the patience with what is under way
        assert "too long" not in run.text()
        summary = run.summary()
        assert summary["results"]["count"]["frames"] == summary["frames"] > 0


def test_ctrl_c_does_not_wait_for_a_block_that_is_stuck(place):
    marker = place.path / "marker"
    settings = ('middle.how="spin"', "middle.at=2000", f'middle.marker="{marker}"')
    with begin(place, *settings, "source.rate=4000", workers=3) as run:
        wait_until(marker.exists)
        run.process.send_signal(signal.SIGINT)
        assert run.end() < 15.0
        assert run.process.returncode == 130
        assert "worker middle did not stop and was killed" in run.text()
        assert "Traceback" not in run.text()
        summary = run.summary()
        assert summary["results"]["count"]["frames"] > 0
        assert 0 < summary["blocks"]["middle"]["frames"] <= 2000


def test_a_second_ctrl_c_ends_a_run(place):
    marker = place.path / "marker"
    with begin(place, 'count.how="spin"', "count.at=50", f'count.marker="{marker}"') as run:
        wait_until(marker.exists)

        def pressed_again():  # signals of one kind that come together are one
            run.process.send_signal(signal.SIGINT)
            return run.process.poll() is not None

        wait_until(pressed_again)
        assert run.process.returncode == 130
        assert run.summary()["exit_code"] == 130


def test_a_second_ctrl_c_is_heard_while_the_display_is_stuck(place):
    shown = []

    def stuck(summary):
        shown.append(summary)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    before = signal.getsignal(signal.SIGINT)
    began = time.monotonic()
    outcome = supervise(place, {}, on_status=stuck)
    assert time.monotonic() - began < 50
    assert (outcome.code, len(shown)) == (130, 1)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_full_window_before_a_slow_block_delays_no_stop(place):
    closed = place.path / "closed"
    settings = ("count.pause=0.05", f'count.closed="{closed}"')
    text = faults.FLOW + f"window = {1 << 20}\n"  # more than two minutes of work
    with begin(place, *settings, workers=3, text=text) as run:
        run.running(3)
        wait_until(lambda: run.status()["edges"]["middle->count"].get("queue", 0) > 0.9 * (1 << 20))
        run.process.send_signal(signal.SIGINT)
        assert run.end() < 15.0
        assert run.process.returncode == 130
        assert "what was under way was dropped" in run.text()
        summary = run.summary()
        assert 0 < summary["results"]["count"]["frames"] < summary["frames"]
        assert closed.exists()  # a sink finishes its files all the same


def test_a_closed_terminal_ends_the_run(place):
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [*faults.KALVIT, "run", str(place.flow()), "--blocks", str(BLOCKS)],
        env=place.env, stdin=end, stdout=end, stderr=end, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(end)
    os.set_blocking(terminal, False)
    screen = bytearray()

    def shown(what):
        with suppress(BlockingIOError):
            screen.extend(os.read(terminal, 1 << 16))
        assert process.poll() is None, screen.decode()
        return what in screen

    wait_until(lambda: shown(b"count: frames"))  # the live table
    workers = place.workers()
    os.close(terminal)
    assert process.wait(20) == 128 + signal.SIGHUP
    assert all(map(gone, workers.values()))
    (folder,) = place.folders()
    assert json.loads((folder / "summary.json").read_text())["exit_code"] == 128 + signal.SIGHUP


def test_a_reader_that_has_gone_stops_the_run(place):
    reading, writing = os.pipe()
    with begin(place, stdout=writing) as run:
        os.close(writing)
        run.running(1)
        os.close(reading)
        run.end(10.0)
        assert "Traceback" not in run.text()
        summary = run.summary()
        assert summary["errors"] == []
        assert summary["results"]["count"]["frames"] == summary["frames"]


# workers that die


@pytest.mark.parametrize("name", ["main", "middle"])
def test_a_worker_that_is_killed_ends_the_run_and_is_named(place, name):
    closed = place.path / "closed"
    with begin(place, f'count.closed="{closed}"', workers=3) as run:
        workers = run.running(3)
        os.kill(workers[name], signal.SIGKILL)
        assert run.end() < 15.0
        assert run.process.returncode == 1
        assert f"worker {name} was ended by SIGKILL" in run.text()
        assert "Traceback" not in run.text()
        summary = run.summary()
        assert summary["exit_code"] == 1
        assert summary["frames"] > 0  # its last status counts
        assert closed.exists()  # the sinks of others are finished


def test_a_worker_that_leaves_by_itself_is_named(place):
    outcome = supervise(place, {"middle.how": "exit", "middle.at": 3}, workers=3)
    assert outcome.code == 1
    (error,) = outcome.errors
    assert "worker middle exited (3); its output is in" in error


def test_a_worker_that_does_not_come_up_is_named(place, monkeypatch):
    dumb = place.path / "python"
    dumb.write_text("#!/bin/sh\nexec sleep 1000\n")
    dumb.chmod(0o700)
    monkeypatch.setattr(supervisor.sys, "executable", str(dumb))
    outcome = supervise(place, {}, patience=Patience(start=0.3))
    assert outcome.code == 1
    assert [error.split(";")[0] for error in outcome.errors] == [
        "worker main did not come up within 0.3 s"
    ]


def test_a_worker_that_never_gets_ready_is_named(place):
    settings = {"count.how": "sleep", "count.where": "start", "count.at": 0}
    outcome = supervise(place, settings, patience=Patience(ready=0.5))
    assert outcome.code == 1
    assert [error.split(";")[0] for error in outcome.errors] == [
        "worker main was not ready within 0.5 s"
    ]


@pytest.mark.parametrize("how", ["", "spin"])
def test_workers_end_when_the_supervisor_is_killed(place, how):
    marker = place.path / "marker"
    marked = (f'middle.how="{how}"', "middle.at=100", f'middle.marker="{marker}"') if how else ()
    with begin(place, *marked, workers=3) as run:
        if how:
            wait_until(marker.exists)
            workers = run.workers()
        else:
            workers = run.running(3)
        assert len(workers) == 3
        run.process.kill()
        run.process.wait()
        wait_until(lambda: all(map(gone, workers.values())), 2.0)
    assert place.leftovers() != []
    supervise(place, {}, frames=1)  # sweeps; the fixture looks


# blocks that raise


WHERE = [
    ("source", "process", "main:3"), ("source", "start", "main:0"), ("source", "close", "main:"),
    ("middle", "process", "main:3"), ("middle", "start", "main:0"), ("middle", "finish", "main:"),
    ("count", "process", "main:3"), ("count", "open", "main:0"), ("count", "finish", ""),
    ("count", "start", ""), ("count", "report", ""), ("count", "last report", ""),
]  # fmt: skip


@pytest.mark.parametrize(("block", "where", "place_in_stream"), WHERE)
def test_a_block_that_raises_is_named_with_its_frame(place, block, where, place_in_stream):
    settings = {f"{block}.where": where, f"{block}.at": 2, "source.frames": 10}
    outcome = supervise(place, settings)
    (error,) = outcome.errors
    assert outcome.code == 1
    expected = f"{block} raised ValueError" + (f" on {place_in_stream}" if place_in_stream else ":")
    assert error.startswith(expected)
    assert "the cup is broken" in error
    (file,) = (outcome.folder / "errors").iterdir()
    assert str(file) in error
    head, _, traceback = file.read_text().partition("\n\n")
    facts = dict(line.split(" ", 1) for line in head.splitlines() if " " in line)
    assert facts["block"] == block
    assert facts.get("stream", "") == place_in_stream.partition(":")[0]
    if place_in_stream:
        assert facts["seq"].startswith(place_in_stream.partition(":")[2])
    assert "Traceback (most recent call last)" in traceback
    assert "ValueError: the cup is broken" in traceback
    summary = json.loads((outcome.folder / "summary.json").read_text())
    assert summary["exit_code"] == 1
    assert summary["errors"] == outcome.errors


def test_a_block_that_raises_prints_no_traceback(place):
    with begin(place, "middle.at=5", workers=3) as run:
        run.end()
        assert run.process.returncode == 1
        assert "error: middle raised ValueError on main:6: the cup is broken" in run.text()
        assert "Traceback" not in run.text()


@pytest.mark.parametrize("block", ["source", "count"])
def test_trouble_that_is_no_bug_is_told_in_words(place, block):
    with begin(place, f'{block}.how="disk full"', f"{block}.at=5") as run:
        run.end()
        assert run.process.returncode == 2
        assert f"error: {block}: cannot write /mnt/tape: No space left" in run.text()
        assert "Traceback" not in run.text()


def test_what_was_counted_before_an_error_is_in_the_summary(place):
    outcome = supervise(place, {"source.at": 300})
    assert outcome.summary["results"]["count"]["frames"] == 300


def test_a_sink_may_report_what_json_cannot_say(place):
    outcome = supervise(place, {"source.frames": 3})
    assert outcome.code == 0
    text = (outcome.folder / "summary.json").read_text()
    odd = json.loads(text, parse_constant=pytest.fail)["results"]["count"]["odd"]
    assert odd[0] is None
    assert all(isinstance(value, str) for value in odd[1:])


def test_a_summary_that_cannot_be_written_hides_no_error(place):
    def sabotage(summary):
        (place.folders()[0] / "summary.json.partial").mkdir(exist_ok=True)

    outcome = supervise(place, {"source.rate": 1000, "source.at": 1000}, on_status=sabotage)
    assert outcome.code == 1
    raised, unwritten = outcome.errors
    assert "source raised ValueError" in raised
    assert "cannot write" in unwritten
    assert "summary.json" in unwritten


def test_a_display_that_cannot_be_written_stops_nothing(place):
    def full(summary):
        raise OSError(errno.ENOSPC, "No space left on device")

    outcome = supervise(place, {"source.rate": 1000, "source.frames": 700}, on_status=full)
    assert (outcome.code, outcome.errors) == (0, [])
    assert outcome.summary["results"]["count"]["frames"] == 700


# runs beside each other


def test_two_runs_of_a_flow_do_not_touch_each_other(place):
    with begin(place) as first, begin(place, workers=3) as second:
        wait_until(lambda: len(place.folders()) == 2 and len(rundir.running()) == 2)
        # which folder is whose: one worker, or three
        wait_until(lambda: sorted(len(place.workers(f.name)) for f in place.folders()) == [1, 3])
        one, three = sorted(place.folders(), key=lambda f: len(place.workers(f.name)))

        for command in ("stop", "status"):
            refused = place.command(command)
            assert refused.returncode == 2
            assert "several flows are running; name one: " in refused.stderr
            assert one.name in refused.stderr
            assert three.name in refused.stderr

        os.kill(place.workers(three.name)["middle"], signal.SIGKILL)
        second.end()
        assert second.process.returncode == 1
        assert first.process.poll() is None
        assert rundir.running() == [one.name]

        shown = place.command("status", one.name)
        assert shown.returncode == 0
        assert one.name in shown.stdout
        assert "worker main: process" in shown.stdout

        stopped = place.command("stop")
        assert stopped.returncode == 0
        assert f"{one.name} is stopping" in stopped.stdout
        first.end()
        assert first.process.returncode == 0
        summary = json.loads((one / "summary.json").read_text())
        assert summary["results"]["count"]["frames"] == summary["frames"] > 0
        assert summary["errors"] == []


def test_stop_and_status_say_that_nothing_runs(place):
    for command in (("stop",), ("status", "nobody-123456")):
        refused = place.command(*command)
        assert refused.returncode == 2
        assert "no flow is running" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_starting_runs_do_not_sweep_each_other_away(place):
    missing = []

    def start_and_end():
        for _ in range(20):
            with RunDir("faulty") as run_dir:
                if not (run_dir.path / "lock").exists():
                    missing.append(run_dir.path)
                if run_dir.run_id not in rundir.running():
                    missing.append(run_dir.path)

    threads = [threading.Thread(target=start_and_end) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert rundir.running() == []


def test_a_start_sweeps_what_was_killed_at_any_moment(place):
    for name, files in {"a-1": (), "b-2": ("lock",), "c-3": ("lock", "control")}.items():
        (place.root / name).mkdir(parents=True)
        for file in files:
            (place.root / name / file).touch()
    with RunDir("faulty") as run_dir:
        assert list(place.root.iterdir()) == [run_dir.path]
        assert run_dir.path.stat().st_mode & 0o777 == 0o700
        assert rundir.running() == [run_dir.run_id]


def test_an_id_that_is_in_use_is_not_taken_again(place, monkeypatch):
    ids = iter(["aaaaaa", "bbbbbb", "cccccc"])
    monkeypatch.setattr(rundir.secrets, "token_hex", lambda size: next(ids))
    (place.root / "flow-bbbbbb").mkdir(parents=True)
    kept = os.open(place.root / "flow-bbbbbb" / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(kept, fcntl.LOCK_EX)
    with RunDir("flow", lambda run_id: run_id == "flow-aaaaaa") as run_dir:
        assert run_dir.run_id == "flow-cccccc"
    os.close(kept)
    (place.root / "flow-bbbbbb" / "lock").unlink()
    (place.root / "flow-bbbbbb").rmdir()


def test_a_root_that_is_a_link_is_refused(place):
    elsewhere = place.path / "elsewhere"
    (elsewhere / "precious").mkdir(parents=True)
    place.root.symlink_to(elsewhere)
    with pytest.raises(RunError, match="is no directory of your own"), RunDir("flow"):
        pass
    assert (elsewhere / "precious").exists()
    place.root.unlink()


def test_a_runtime_directory_with_a_long_name_is_refused_before_anything_is_made(
    place, monkeypatch
):
    long = place.path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(RunError, match="set XDG_RUNTIME_DIR to a shorter directory"):
        supervise(place, {})
    assert place.folders() == []
    assert list((long / "kalvit").iterdir()) == []


# edges


def message(frames):
    """Frames that share a message."""
    codec = Codec()
    numbered = [Frame(Kind.DATA, "main", seq, seq, 0, {}, {}) for seq in range(frames)]
    return b"".join(piece for frame in numbered for piece in codec.encode(frame))


@pytest.mark.parametrize(
    ("per_frame_ns", "expected"), [(5_000_000, range(1, 41)), (1000, (1, 3, 7, 15, 31, 40))]
)
def test_a_worker_looks_around_between_slow_frames_of_a_message(
    monkeypatch, per_frame_ns, expected
):
    clock = [0]
    monkeypatch.setattr(roots, "now_ns", lambda: clock[0])
    came = []

    def out(frame):
        came.append(frame.seq)
        clock[0] += per_frame_ns

    waiting = [message(40)]

    def recv(flags, copy):
        if not waiting:
            raise zmq.Again
        return zmq.Frame(waiting.pop())

    socket = SimpleNamespace(recv=recv)
    receiver = Receiver("a->b", socket, Codec(), out)
    root = roots.EdgeRoot(receiver, [])
    for count in expected:
        assert not receiver.unacknowledged
        assert root.pump(clock[0])
        assert came == list(range(count))
    assert receiver.unacknowledged
    assert not root.pump(clock[0])
    assert receiver.lost == 0


def test_an_acknowledgement_that_nobody_waits_for_holds_nothing_up(place):
    context = zmq.Context()
    receiving, sending = data_socket(context, FRAME_CAP), data_socket(context, FRAME_CAP)
    bind(receiving, f"ipc://{place.path}/edge", None)
    connect(sending, f"ipc://{place.path}/edge", None)
    sending.send(message(1))
    assert receiving.poll(5000)
    receiver = Receiver("a->b", receiving, Codec(), lambda frame: None)
    receiver.pump()
    sending.close(0)
    wait_until(lambda: not receiving.poll(0, zmq.POLLOUT))
    receiver.ack()  # a socket without a peer blocks
    assert receiver.unacknowledged
    context.destroy(linger=0)


# many frames


def test_many_frames_cross_three_workers_in_order_and_none_is_lost(place):
    found = subprocess.run(
        [sys.executable, "-m", "bench.soak", "--frames", "20000", "--json", "-"],
        cwd=REPOSITORY, env=place.env, text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    numbers = json.loads(found.stdout)
    assert numbers["frames"] == 20000
    assert numbers["lost"] == numbers["out_of_order"] == numbers["damaged"] == 0
    assert set(numbers["workers"]) == {"main", "middle", "end"}
    assert Path(numbers["folder"]).is_dir()
