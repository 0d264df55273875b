"""A camera that sees states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from blocks import fields
from blocks.channel.noise import standard_normal
from blocks.kernels import camera
from blocks.position import Position
from pipeline.block import Block, param
from pipeline.errors import FieldError
from pipeline.frame import Array, FrameInfo, Scalar

SCENES = {"pendulum": (camera.pendulum, 1), "lorenz": (camera.lorenz, 3)}  # and numbers needed


class Seen(NamedTuple):
    """What the camera adds."""

    images: Annotated[Float32[Array, "*word time row column"], fields.IMAGES]


class Camera(Block, name="channel.camera"):
    """Images of true states, with noise.

    After Buchnik et al., "Latent-KalmanNet", arXiv 2304.07827. pendulum: a bob that hangs from the
    middle of the image at the angle that is the first number of the state, 0 downwards; lorenz: a
    spot at the first two numbers, as wide as the third says (kernels/camera.py has the measures).
    A perfect image is black but for a spot that is 1 in its middle. It is rounded to `levels` steps
    of grey; then a share of the pixels is made black or white, and Gaussian noise added to all.

    The noise depends on the seed, the name of the block, the stream and the place in it alone.

    states  (..., time, n) float64
    images  (..., time, side, side) float32, row by row from the top

    Raises FieldError for states that have too few numbers.
    """

    scene: Literal["pendulum", "lorenz"] = param(default="pendulum", doc="what is drawn of a state")
    side: int = param(
        default=28, at_least=4, at_most=256, unit="pixels", doc="rows, and columns, of an image"
    )
    levels: int = param(
        default=255, at_least=0, at_most=65535, doc="steps of grey from black to white; 0: any"
    )
    salt_pepper: float = param(
        default=0.1, at_least=0.0, at_most=1.0,
        doc="probability that a pixel is black or white, each half of it, whatever is there",
    )  # fmt: skip
    noise_var: float = param(
        default=0.0, at_least=0.0, doc="variance of the Gaussian noise of a pixel"
    )

    def start(self) -> None:
        self._draw, self._needs = SCENES[self.scene]
        self._uniforms = self.draws("salt and pepper", lambda rng, n: rng.random(n))
        self._normals = self.draws("noise", standard_normal)
        self._position = Position()
        nothing = np.empty((0, self.side, self.side))
        self._draw(np.empty((0, self._needs)), nothing)  # compiled before the first frame
        camera.salt_pepper(nothing, np.empty(0), 0.0)

    def process(
        self, states: Float64[Array, "*word time state"], info: FrameInfo = FrameInfo()
    ) -> Seen:
        if states.shape[-1] < self._needs:
            raise FieldError(
                f"{self.name}: 'states' have {states.shape[-1]} numbers, but a picture of "
                f"'{self.scene}' shows {self._needs}"
            )
        flat = np.array(states.reshape(-1, states.shape[-1]))
        pixels = self.side * self.side
        first = self._position.take(info, len(flat)) * pixels
        images = np.empty((len(flat), self.side, self.side))
        self._draw(flat, images)
        if self.levels:
            np.rint(images * self.levels, out=images)
            images /= self.levels
        if self.salt_pepper:
            uniforms = self._uniforms.take(first, len(flat) * pixels)
            camera.salt_pepper(images, uniforms, self.salt_pepper)
        if self.noise_var:
            noise = self._normals.take(first, len(flat) * pixels)
            images += np.sqrt(self.noise_var) * noise.reshape(images.shape)
        shape = (*states.shape[:-1], self.side, self.side)
        return Seen(images.astype(np.float32).reshape(shape))

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"position": self._position.next}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._position.next = int(state["position"])
