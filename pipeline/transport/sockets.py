"""ZeroMQ sockets as this project uses them.

Plain ZeroMQ promises less than it seems to: high-water marks count messages per side, a clean
close may lose what is queued (even with LINGER -1), a second bind steals an ipc path, and a tcp
port hands random bytes on as messages. So credit is counted in bytes (edge.py), `end` is
acknowledged before anyone closes, ipc paths lie in a private directory, and tcp is encrypted and
authenticated with a key pair of the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from pipeline.errors import RunError

LINGER_MS = 0  # everything that matters is acknowledged before a socket closes
RECONNECT_MS = 10  # the other end may come up a little later
SLACK = 1 << 16  # bytes of a message beside the frame it carries


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """The key pair of a run (Z85 text). Both ends of a tcp edge are this run's own workers."""

    public: str
    secret: str

    @classmethod
    def new(cls) -> CurveKeys:
        """A fresh pair."""
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


def data_socket(context: zmq.Context[zmq.Socket[bytes]], cap: int) -> zmq.Socket[bytes]:
    """A socket for one end of an edge: frames one way, acknowledgements the other.

    cap   largest frame in bytes
    """
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.SNDHWM, 0)  # the edge counts credit in bytes
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, cap + SLACK)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    return socket


def bind(socket: zmq.Socket[bytes], endpoint: str, keys: CurveKeys | None) -> None:
    """Bind a receiving socket; RunError where the address is taken or wrong."""
    if endpoint.startswith("tcp://") and keys is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise RunError(
            f"cannot listen on {endpoint}: {zmq.strerror(error.errno or 0)}; "
            "choose another port, or end the program that holds this one"
        ) from None


def connect(socket: zmq.Socket[bytes], endpoint: str, keys: CurveKeys | None) -> None:
    """Connect a sending socket; the peer may come up later."""
    if endpoint.startswith("tcp://") and keys is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.public.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise RunError(f"cannot connect to {endpoint}: {zmq.strerror(error.errno or 0)}") from None
