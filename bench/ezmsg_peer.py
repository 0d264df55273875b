"""ezmsg, the closest peer on PyPI: a publisher and a subscriber unit in two processes.

Written as its documentation recommends: units with an output and an input stream, the publisher
named in `process_components`; shared memory and 32 buffers are its defaults. Run as a program it
prints frames per second between the first and the last message, and the median latency in us.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("EZMSG_LOGLEVEL", "ERROR")

import ezmsg.core as ez
import numpy as np


@dataclass
class Message:
    """A payload with the time of its birth."""

    born_ns: int
    samples: np.ndarray[Any, Any]


class Settings(ez.Settings):
    """What both units are told."""

    size: int  # bytes
    frames: int
    rate: float  # frames per second; 0: as fast as possible
    closed: bool  # a message goes when the one before has come


class Sent(ez.State):
    """The echo of the last message."""

    echo: asyncio.Event


class Publisher(ez.Unit):
    """Sends the same payload again and again."""

    SETTINGS = Settings
    STATE = Sent
    OUTPUT = ez.OutputStream(Message)
    ECHO = ez.InputStream(int)

    async def initialize(self) -> None:
        """Nothing has been sent."""
        self.STATE.echo = asyncio.Event()

    @ez.subscriber(ECHO)
    async def on_echo(self, message: int) -> None:
        """Let the next message go."""
        self.STATE.echo.set()

    @ez.publisher(OUTPUT)
    async def publish(self) -> AsyncGenerator[Any, None]:
        """Send all messages."""
        payload = np.zeros(self.SETTINGS.size // 4, np.float32)
        due = time.monotonic()
        for _ in range(self.SETTINGS.frames):
            if self.SETTINGS.rate:
                due += 1.0 / self.SETTINGS.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            yield self.OUTPUT, Message(time.monotonic_ns(), payload)
            if self.SETTINGS.closed:
                await self.STATE.echo.wait()
                self.STATE.echo.clear()
        raise ez.Complete


class Came(ez.State):
    """When messages were sent and came."""

    first_ns: int = 0
    last_ns: int = 0
    latency_ns: list[int] = field(default_factory=list)

    def note(self, born_ns: int, frames: int) -> None:
        """Note one message; end the system after the last."""
        self.last_ns = time.monotonic_ns()
        if not self.latency_ns:
            self.first_ns = self.last_ns
        self.latency_ns.append(self.last_ns - born_ns)
        if len(self.latency_ns) == frames:
            raise ez.NormalTermination


class Subscriber(ez.Unit):
    """Looks at the clock for every message."""

    SETTINGS = Settings
    STATE = Came
    INPUT = ez.InputStream(Message)

    @ez.subscriber(INPUT)
    async def receive(self, message: Message) -> None:
        """Note one message."""
        self.STATE.note(message.born_ns, self.SETTINGS.frames)


class EchoSubscriber(ez.Unit):
    """Likewise, and tells the publisher that it has come."""

    SETTINGS = Settings
    STATE = Came
    INPUT = ez.InputStream(Message)
    ECHO = ez.OutputStream(int)

    @ez.subscriber(INPUT)
    @ez.publisher(ECHO)
    async def receive(self, message: Message) -> AsyncGenerator[Any, None]:
        """Note one message, and answer it."""
        self.STATE.note(message.born_ns, self.SETTINGS.frames)
        yield self.ECHO, 1


def measure(size: int, frames: int, rate: float = 0.0, closed: bool = False) -> dict[str, float]:
    """Frames per second and median latency in us of one run."""
    settings = Settings(size=size, frames=frames, rate=rate, closed=closed)
    publisher = Publisher(settings)
    subscriber = EchoSubscriber(settings) if closed else Subscriber(settings)
    connections = [(publisher.OUTPUT, subscriber.INPUT)]
    if isinstance(subscriber, EchoSubscriber):
        connections.append((subscriber.ECHO, publisher.ECHO))
    ez.run(
        PUBLISHER=publisher,
        SUBSCRIBER=subscriber,
        connections=connections,
        process_components=(publisher,),
    )
    came = subscriber.STATE
    if len(came.latency_ns) != frames:
        raise RuntimeError(f"{len(came.latency_ns)} of {frames} messages came")
    return {
        "frames_per_s": (frames - 1) / max(came.last_ns - came.first_ns, 1) * 1e9,
        "latency_us": statistics.median(came.latency_ns) / 1e3,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--closed", action="store_true", help="one message in flight")
    arguments = parser.parse_args()
    found = measure(arguments.bytes, arguments.frames, arguments.rate, arguments.closed)
    print(json.dumps(found))
