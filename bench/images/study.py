"""Every reader and tracker on the same images."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.images.readers import Matching, Read, centroid
from bench.images.scenes import CASES, SCENES, SIDE, Drawn, Scene, drawn
from bench.images.table import decibel
from bench.images.trackers import tuned, with_extended
from blocks.kernels import kalmannet, latent
from blocks.kernels.image_encoder import encoder_of
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters
from blocks.models.image_encoder import ImageEncoder
from blocks.models.kalmannet import network_of
from blocks.training import image_encoder
from blocks.training.calibration import filtered
from blocks.training.image_encoder import Images
from blocks.training.kalmannet import Unrolled
from blocks.training.latent_kalmannet import Shown, Turns
from blocks.training.trajectories import Schedule, Trajectories, silent, train

Array = np.ndarray[Any, Any]

DOUBT = {"pendulum": 0.3, "lorenz": 1.0}  # of the priors that an encoder sees at first


class Study:
    """One scene and one seed: rows name -> mean squared error of each test trajectory."""

    def __init__(self, scene: Scene, case: str, seed: int, options: Any) -> None:
        self.scene, self.case, self.options, self.seed = scene, case, options, seed
        self.rows: dict[str, dict[str, list[float]]] = {}
        self.told: dict[str, Any] = {}
        share = options.share
        self.training = drawn(scene, case, int(300 * share), 10 + 100 * seed)
        self.held_out = drawn(scene, case, max(int(20 * share), 2), 11 + 100 * seed)
        self.test = drawn(scene, case, max(int(100 * share), 2), 12 + 100 * seed)

    def row(self, name: str, estimates: Array) -> None:
        square = np.square(self.scene.off(estimates, self.test.states)).mean(1)  # (track, number)
        read = square[:, : self.scene.numbers].mean(1)
        self.rows[name] = {"read": read.tolist()}
        line = f"{self.scene.name} {self.case} {name}: {decibel(read.mean()):.2f}"
        if estimates.shape[-1] == self.test.states.shape[-1]:
            self.rows[name]["state"] = square.mean(1).tolist()
            line += f", whole state {decibel(square.mean()):.2f}"
        print(line, flush=True)

    def read(self, part: Drawn, read: Read) -> Array:
        """What a reader makes of all images (count, time, n)."""
        return read(part.flat[1]).reshape(*part.states.shape[:2], -1)

    def follow(self, name: str, read: Read) -> tuple[Array, Array, Array]:
        """The rows of a reader, alone and with a filter; what it read, and its variance."""
        held_out, test = (self.read(part, read) for part in (self.held_out, self.test))
        R = np.square(self.scene.off(held_out, self.held_out.states)).mean((0, 1)) + 1e-9
        self.row(name, test)
        q, scale = tuned(self.scene, held_out, self.held_out.states, R)
        self.told[f"{name} + EKF"] = {"q2": q, "R": (scale * R).tolist()}
        self.row(f"{name} + EKF", with_extended(self.scene.built(q, tuple(scale * R)), test))
        return held_out, test, R

    def run(self) -> None:
        guess = centroid(self.scene, self.training)
        if self.options.matching:
            self.matching(guess)
        self.follow("centroid", guess)
        self.encoder()
        if self.options.rounds:
            self.latent()

    def matching(self, guess: Read) -> None:
        """Template matching, which is slow, on a third of the test trajectories."""
        if self.scene.name == "pendulum":
            bank = np.linspace(-np.pi, np.pi, 128, endpoint=False)[:, None]
        else:
            rng = np.random.default_rng(self.seed)
            bank = rng.permutation(self.training.flat[0])[:4000]
        whole, few = self.test, max(len(self.test.states) // 3, 1)
        self.test = Drawn(*(array[:few] for array in whole))
        self.follow("matching", Matching(self.scene, self.case, bank, guess))
        self.test = whole

    def encoder(self) -> None:
        """An encoder of single images, with a filter, told how sure it is, or with a KalmanNet."""
        scene = self.scene
        torch.manual_seed(self.seed)
        module = ImageEncoder(side=SIDE, angles=scene.angles)
        lessons = [
            Images(part.flat[1], part.flat[0][:, : scene.numbers])
            for part in (self.training, self.held_out)
        ]
        steps, begin = self.options.steps, time.process_time()
        image_encoder.fit(module, *lessons, image_encoder.Schedule(steps=steps), self.seed)
        self.told["encoder"] = {"steps": steps, "seconds": time.process_time() - begin}
        self.arrays = module.arrays()
        encoder = encoder_of(module.hyper, self.arrays)

        def told(images: Array) -> Array:
            found = np.empty((2, len(images), scene.numbers))
            encoder(images, *found)
            return found

        seen, test, R = self.follow("encoder", lambda images: told(images)[0])
        spreads = [
            self.read(part, lambda images: told(images)[1]) for part in (self.held_out, self.test)
        ]
        q, scale = tuned(scene, seen, self.held_out.states, R, spreads[0])
        self.told["encoder + EKF, told"] = {"q2": q, "scale": scale}
        self.row("encoder + EKF, told", with_extended(scene.built(q), test, scale * spreads[1]))
        if self.options.gain_steps:
            training = self.read(self.training, lambda images: told(images)[0])
            self.gain(training, seen, test)

    def gain(self, training: Array, seen: Array, test: Array) -> None:
        """A KalmanNet behind the encoder."""
        model = self.scene.built(self.scene.noise)
        network = network_of(2, m=model.size, n=model.rows)
        lessons = [
            Trajectories(part.states, read, np.full(read.shape[:2], model.step_s))
            for part, read in (
                (self.training, training), (self.held_out, seen), (self.test, test)
            )
        ]  # fmt: skip
        begin = time.process_time()
        train(Unrolled(network, model), model, *lessons[:2], self.schedule, self.seed)
        self.told["KalmanNet"] = {"seconds": time.process_time() - begin}
        filters = Filters(kalmannet.network_of(network.hyper, network.arrays()), model)
        self.row("encoder + KalmanNet", filtered(filters, lessons[2], spread=False).estimates)

    @property
    def schedule(self) -> Schedule:
        """Of a gain."""
        steps = self.options.gain_steps
        return Schedule(steps=steps, piece=20, batch=32, long_steps=steps // 3, truncate=50)

    def latent(self) -> None:
        """An encoder that sees the prediction, in turns with the gain of a KalmanNet."""
        scene, model = self.scene, self.scene.built(self.scene.noise)
        torch.manual_seed(self.seed)
        module = ImageEncoder(
            side=SIDE, angles=scene.angles, extra=scene.numbers + sum(scene.angles)
        )
        network = network_of(2, m=model.size, n=model.rows)
        parts = [
            Shown(part.states, part.images, np.full(part.states.shape[:2], model.step_s))
            for part in (self.training, self.held_out, self.test)
        ]
        turns = Turns(module, network, model, *parts[:2], doubt=DOUBT[scene.name], seed=self.seed)
        begin, steps = time.process_time(), self.options.steps
        for turn in range(self.options.rounds):
            reads = image_encoder.Schedule(steps=steps, rate=2e-3)
            if turn:
                reads = image_encoder.Schedule(steps=steps // 3, rate=6e-4)
            turns.teach_encoder(reads, silent)
            turns.teach_gain(self.schedule, silent)
        self.told["Latent-KalmanNet"] = {"seconds": time.process_time() - begin}
        encoder = encoder_of(module.hyper, module.arrays())
        filters = Filters(kalmannet.network_of(network.hyper, network.arrays()), model)
        _, images, intervals = parts[2]
        out = Track.empty(intervals.shape, model.size, model.rows)
        begun = filters.start(len(images))
        _, read, _ = latent.run(encoder, filters, images, intervals, begun, out, together=True)
        self.row("prior encoder, in the tracker", read)
        self.row("Latent-KalmanNet", out.estimates)


def study(options: Any) -> None:
    """All cases of a scene, into a file."""
    torch.set_num_threads(1)
    scene, out = SCENES[options.scene], Path(options.out)
    found: dict[str, Any] = {"scene": scene.name, "seed": options.seed, "cases": {}}
    for case in options.cases.split(","):
        one = Study(scene, case, options.seed, options)
        one.run()
        found["cases"][case] = {"rows": one.rows, "told": one.told}
        out.write_text(json.dumps(found))
        name = f"{scene.name}_{options.seed}_{list(CASES).index(case)}.npz"
        np.savez_compressed(out.with_name(name), **one.arrays)
