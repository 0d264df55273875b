"""Images of a pendulum and of a Lorenz point: what a network reads, and what tracks it.

    python -m bench.images study --scene lorenz --seed 0 --out lorenz_0.json
    python -m bench.images table FILES...         # the rows of all seeds, as in bench/IMAGES.md
    python -m bench.images speed                  # images a second, on one core

The settings of Buchnik et al., "Latent-KalmanNet", arXiv 2304.07827: 28 x 28 pixels, of which a
share is black or white at random; trajectories of 200 steps. Pendulum: the paper's step of 50 ms,
q2 = 1e-3, the arm at a quarter turn at first; errors of angles are around the circle. Lorenz: steps
of 20 ms with A(x) = [[-10, 10, 0], [28 - z, -1, 0], [y, 0, -8/3]] to 5 terms, q2 = 0.1, in 8 steps
of grey as coarse as the authors' rounding makes the images in the middle of the attractor. One more
case that the paper has not: half of the pixels lost, and Gaussian noise of 0.2 on all.

Readers of single images, of which each is followed by an extended filter with noise tuned on
validation trajectories:

matching  knows the camera: the likeliest of a bank of templates, refined by robust least squares
centroid  knows no camera: moments of the brightness and of the greyness, squared and fitted by
          least squares to the training images
encoder   the network of frontend.learned_features, trained on them; the filter may be told how sure
          it is ("told"), and a KalmanNet may learn the gain
prior     the network of tracker.latent_kalmannet, which sees the prediction of the tracker beside
          the image, with a learned gain (Latent-KalmanNet)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import camera, extended_kalman, kalmannet, latent, state_space
from blocks.kernels.image_encoder import encoder_of
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

STEPS, SIDE, PIECE = 200, 28, 20
CASES = {"p=.5": (0.5, 0.0), "p=.1": (0.1, 0.0), "p=.01": (0.01, 0.0), "p=0": (0.0, 0.0),
         "p=.5 s=.2": (0.5, 0.04)}  # fmt: skip
NOISES = [10.0 ** (k / 2.0) for k in range(-10, 3)]
DOUBT = {"pendulum": 0.3, "lorenz": 1.0}  # of the priors that an encoder sees at first
SCALES = (0.1, 0.3, 1.0, 3.0, 10.0)


class Scene(NamedTuple):
    """What is simulated, and how many numbers an image shows.

    model    motion, observation and step
    noise    q2
    levels   steps of grey
    angles   of the numbers that are read
    """

    name: str
    model: dict[str, Any]
    noise: float
    levels: int
    angles: tuple[bool, ...]

    @property
    def numbers(self) -> int:
        return len(self.angles)

    def draw(self, states: Array) -> Array:
        """Perfect images of states (count, n), not rounded yet."""
        images = np.empty((len(states), SIDE, SIDE))
        getattr(camera, self.name)(np.ascontiguousarray(states), images)
        return images

    def built(self, process_noise: float, noise_var: Any = 1.0) -> StateSpace:
        return state_space.build(
            **self.model, process_noise=process_noise, observation_noise=noise_var
        )

    def off(self, estimates: Array, states: Array) -> Array:
        """Errors of the leading numbers, angles around the circle."""
        off = estimates - states[..., : estimates.shape[-1]]
        for k in np.flatnonzero(self.angles):
            off[..., k] -= 2.0 * np.pi * np.round(off[..., k] / (2.0 * np.pi))
        return off


SCENES = {
    "pendulum": Scene(
        "pendulum", {"motion": "pendulum", "observation": "angle", "step_s": 0.05}, 1e-3, 255,
        (True,),
    ),
    "lorenz": Scene(
        "lorenz",
        {"motion": "lorenz_taylor", "observation": "identity", "step_s": 0.02,
         "motion_parameters": {"true_jacobian": 1.0}}, 0.1, 8, (False, False, False),
    ),
}  # fmt: skip


class Drawn(NamedTuple):
    """states (count, time, n) and images (count, time, side, side) of them."""

    states: Array
    images: Array

    @property
    def flat(self) -> tuple[Array, Array]:
        return self.states.reshape(-1, self.states.shape[-1]), self.images.reshape(-1, SIDE, SIDE)


def drawn(scene: Scene, case: str, count: int, seed: int) -> Drawn:
    """Trajectories and their images."""
    share, noise_var = CASES[case]
    rng = np.random.default_rng([seed, count])
    model = scene.built(scene.noise)
    states = rng.standard_normal((count * STEPS, model.size))
    seen = rng.standard_normal((count * STEPS, model.rows))
    starts = np.tile(model.initial, (count, 1))
    model.simulate(states, seen, np.full(count * STEPS, model.step_s), starts)
    images = np.rint(scene.draw(states) * scene.levels) / scene.levels
    if share:
        camera.salt_pepper(images, rng.random(images.size), share)
    if noise_var:
        images += np.sqrt(noise_var) * rng.standard_normal(images.shape)
    shape = (count, STEPS)
    return Drawn(
        states.reshape(*shape, -1), images.astype(np.float32).reshape(*shape, SIDE, SIDE)
    )  # fmt: skip


# --- Readers of single images ---------------------------------------------------------------------


def matching(
    scene: Scene, case: str, bank: Array, guess: Callable[[Array], Array]
) -> Callable[[Array], Array]:
    """Reads images by a camera that is known; `bank` are states of which templates are made.

    The templates nearest to an image (all, of a small bank) and what `guess` reads are compared by
    their likelihood, in which each pixel is either what the camera sees, or black or white; the
    best is refined by Gauss-Newton steps, in which a pixel counts by how likely it is the former.
    """
    share, noise_var = CASES[case]
    width = noise_var + 1.0 / (12.0 * scene.levels**2)
    templates = scene.draw(bank).reshape(len(bank), -1)
    moves = 1e-2 * np.eye(scene.numbers)

    def density(off: Array) -> Array:
        return np.exp(-0.5 / width * np.square(off))

    def lost(images: Array) -> Array:
        return 0.5 * share * (density(images) + density(images - 1.0)) + 1e-6

    def residuals(states: Array, images: Array) -> Array:
        return scene.draw(states).reshape(len(images), -1) - images

    def unlikely(off: Array, gone: Array) -> Array:
        return -np.log((1.0 - share) * density(off) + gone).sum(-1)

    def read(images: Array) -> Array:
        flat = images.reshape(len(images), -1).astype(np.float64)
        found = np.empty((len(images), scene.numbers))
        squares = np.square((1.0 - share) * templates).sum(1)
        guessed = guess(images)
        for at in range(0, len(flat), 500):
            part = flat[at : at + 500]
            gone = lost(part)
            if len(bank) <= 256:
                costs = np.stack([unlikely(template - part, gone) for template in templates], 1)
                states = bank[costs.argmin(1)][:, : scene.numbers].copy()
            else:
                far = squares - 2.0 * (part - 0.5 * share) @ ((1.0 - share) * templates).T
                nearest = np.argpartition(far, 5, axis=1)[:, :5]
                costs = np.stack(
                    [unlikely(templates[nearest[:, k]] - part, gone) for k in range(5)], 1
                )
                best = nearest[np.arange(len(part)), costs.argmin(1)]
                states = bank[best][:, : scene.numbers].copy()
            now, other = residuals(states, part), guessed[at : at + 500]
            new = residuals(other, part)
            better = unlikely(new, gone) < unlikely(now, gone)
            states[better], now[better] = other[better], new[better]
            for _ in range(6):
                seen = (1.0 - share) * density(now)
                weights = seen / (seen + gone)
                slopes = np.stack(
                    [(residuals(states + m, part) - residuals(states - m, part)) / 2e-2
                     for m in moves], -1,
                )  # fmt: skip
                weighted = weights[:, :, None] * slopes
                normal = np.einsum("ijk,ijl->ikl", weighted, slopes)
                normal += 1e-6 * np.eye(scene.numbers)
                right = np.einsum("ijk,ij->ik", weighted, now)
                tried = states - np.linalg.solve(normal, right[:, :, None])[:, :, 0]
                new = residuals(tried, part)
                better = unlikely(new, gone) < unlikely(now, gone)
                states[better], now[better] = tried[better], new[better]
            found[at : at + 500] = states
        return found

    return read


def moments(images: Array) -> Array:
    """Mass, middle and spread of brightness and of greyness, and all products of two of them."""
    axis = np.linspace(-1.0, 1.0, SIDE)
    columns = [np.ones(len(images))]
    for weight in (images, 4.0 * images * (1.0 - images)):
        weight = np.maximum(weight.astype(np.float64), 0.0)
        mass = weight.sum((1, 2)) + 1e-6
        x = np.einsum("ijk,k->i", weight, axis) / mass
        y = np.einsum("ijk,j->i", weight, axis) / mass
        square = np.einsum("ijk,k->i", weight, axis**2) + np.einsum("ijk,j->i", weight, axis**2)
        columns += [mass / 100.0, x, y, square / mass - x**2 - y**2]
    one = np.stack(columns, 1)
    pairs = np.triu_indices(one.shape[1])
    return one[:, pairs[0]] * one[:, pairs[1]]


def centroid(scene: Scene, training: Drawn) -> Callable[[Array], Array]:
    """Reads images by moments fitted to the states."""
    states, images = training.flat
    columns = []
    for k, is_angle in enumerate(scene.angles):
        columns += (
            [np.cos(states[:, k]), np.sin(states[:, k])] if is_angle else [states[:, k]]
        )  # fmt: skip
    fitted = np.linalg.lstsq(moments(images), np.stack(columns, 1), rcond=1e-10)[0]

    def read(images: Array) -> Array:
        told = moments(images) @ fitted
        if scene.name == "pendulum":
            return np.arctan2(told[:, 1:2], told[:, :1])
        return told

    return read


# --- Trackers -------------------------------------------------------------------------------------


def with_extended(
    model: StateSpace, seen: Array, variances: Array | None = None
) -> Array:  # fmt: skip
    estimates = np.empty((*seen.shape[:2], model.size))
    for track, observations in enumerate(seen):
        out = Track.empty((STEPS,), model.size, model.rows)
        done = extended_kalman.extended(
            model, np.ascontiguousarray(observations), np.full(STEPS, model.step_s),
            model.initial.copy(), np.zeros((model.size, model.size)), out,
            variances=None if variances is None else np.ascontiguousarray(variances[track]),
        )  # fmt: skip
        out.estimates[done:] = np.nan
        estimates[track] = out.estimates
    return estimates


def tuned(
    scene: Scene, seen: Array, states: Array, R: Array, told: Array | None = None
) -> tuple[float, float]:
    """q2 and the scale of R, or of the variances told, that are best on these trajectories."""
    best, found = np.inf, (1.0, 1.0)
    for q in NOISES:
        for scale in SCALES:
            model = scene.built(q, tuple(scale * R))
            estimates = with_extended(model, seen, None if told is None else scale * told)
            error = np.square(scene.off(estimates, states)).mean()
            if error < best:
                best, found = error, (q, scale)
    return found


def with_network(network: Any, model: StateSpace, seen: Array) -> Array:
    filters = Filters(network, model)
    begin = filters.start(len(seen))
    out = Track.empty(seen.shape[:2], model.size, model.rows)
    filters.run(
        np.ascontiguousarray(seen), np.full(seen.shape[:2], model.step_s), begin, out,
        together=True, spread=False,
    )  # fmt: skip
    return out.estimates


# --- The study ------------------------------------------------------------------------------------


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

    def follow(self, name: str, read: Callable[[Array], Array]) -> tuple[Array, Array, Array]:
        """The rows of a reader, alone and with a filter; what it read, and its variance."""
        parts = []
        for part in (self.held_out, self.test):
            parts.append(read(part.flat[1]).reshape(*part.states.shape[:2], -1))
        R = np.square(self.scene.off(parts[0], self.held_out.states)).mean((0, 1)) + 1e-9
        self.row(name, parts[1])
        q, scale = tuned(self.scene, parts[0], self.held_out.states, R)
        self.told[f"{name} + EKF"] = {"q2": q, "R": (scale * R).tolist()}
        self.row(f"{name} + EKF", with_extended(self.scene.built(q, tuple(scale * R)), parts[1]))
        return parts[0], parts[1], R

    def run(self) -> None:
        scene, o = self.scene, self.options
        rng = np.random.default_rng(self.seed)
        if scene.name == "pendulum":
            bank = np.linspace(-np.pi, np.pi, 128, endpoint=False)[:, None]
        else:
            bank = rng.permutation(self.training.flat[0])[:4000]
        few = Drawn(*(a[: max(len(a) // 3, 1)] for a in self.test)), self.test
        self.test = few[0]  # matching is slow
        guess = centroid(scene, self.training)
        if o.matching:
            self.follow("matching", matching(scene, self.case, bank, guess))
        self.test = few[1]
        self.follow("centroid", guess)
        self.encoder(o)
        if o.rounds:
            self.latent(o)

    def encoder(self, o: Any) -> None:
        import torch

        from blocks.models.image_encoder import ImageEncoder
        from blocks.training.image_encoder import Images, Schedule, fit

        scene = self.scene
        torch.set_num_threads(1)
        torch.manual_seed(self.seed)
        module = ImageEncoder(side=SIDE, angles=scene.angles)
        lesson, held_out = (
            Images(part.flat[1], part.flat[0][:, : scene.numbers])
            for part in (self.training, self.held_out)
        )
        begin = time.process_time()
        fit(module, lesson, held_out, Schedule(steps=o.steps), self.seed)
        self.told["encoder"] = {"steps": o.steps, "seconds": time.process_time() - begin}
        encoder = encoder_of(module.hyper, module.arrays())
        self.arrays = module.arrays()

        def read(images: Array) -> tuple[Array, Array]:
            means, variances = np.empty((2, len(images), scene.numbers))
            encoder(images, means, variances)
            return means, variances

        seen, test, R = self.follow("encoder", lambda images: read(images)[0])
        spreads = [
            read(part.flat[1])[1].reshape(*part.states.shape[:2], -1)
            for part in (self.held_out, self.test)
        ]
        q, scale = tuned(scene, seen, self.held_out.states, R, spreads[0])
        self.told["encoder + EKF, told"] = {"q2": q, "scale": scale}
        self.row(
            "encoder + EKF, told", with_extended(scene.built(q), test, scale * spreads[1])
        )  # fmt: skip
        if o.gain_steps:
            training = read(self.training.flat[1])[0].reshape(*self.training.states.shape[:2], -1)
            self.gain(o, training, seen, test)

    def gain(self, o: Any, training: Array, seen: Array, test: Array) -> None:
        """A KalmanNet behind the encoder."""
        from blocks.models.kalmannet import network_of
        from blocks.training.kalmannet import Unrolled
        from blocks.training.trajectories import Schedule, Trajectories, train

        model = self.scene.built(self.scene.noise)
        network = network_of(2, m=model.size, n=model.rows)
        lessons = [
            Trajectories(part.states, z, np.full(z.shape[:2], model.step_s))
            for part, z in ((self.training, training), (self.held_out, seen))
        ]
        begin = time.process_time()
        schedule = Schedule(
            steps=o.gain_steps, piece=PIECE, batch=32, long_steps=o.gain_steps // 3, truncate=50
        )
        train(Unrolled(network, model), model, *lessons, schedule, self.seed)
        self.told["KalmanNet"] = {"seconds": time.process_time() - begin}
        ours = kalmannet.network_of(network.hyper, network.arrays())
        self.row("encoder + KalmanNet", with_network(ours, model, test))

    def latent(self, o: Any) -> None:
        """An encoder that sees the prediction, in turns with the gain of a KalmanNet."""
        import torch

        from blocks.models.image_encoder import ImageEncoder
        from blocks.models.kalmannet import network_of
        from blocks.training import image_encoder
        from blocks.training.latent_kalmannet import Shown, Turns
        from blocks.training.trajectories import Schedule

        scene, model = self.scene, self.scene.built(self.scene.noise)
        torch.manual_seed(self.seed)
        module = ImageEncoder(
            side=SIDE, angles=scene.angles, extra=scene.numbers + sum(scene.angles)
        )
        network = network_of(2, m=model.size, n=model.rows)
        parts = [
            Shown(part.states, part.images, np.full(part.states.shape[:2], model.step_s))
            for part in (self.training, self.held_out)
        ]
        turns = Turns(module, network, model, *parts, doubt=DOUBT[scene.name], seed=self.seed)
        begin = time.process_time()
        for turn in range(o.rounds):
            steps = o.steps if turn == 0 else o.steps // 3
            turns.teach_encoder(
                image_encoder.Schedule(steps=steps, rate=2e-3 if turn == 0 else 6e-4), silent
            )
            turns.teach_gain(
                Schedule(
                    steps=o.gain_steps, piece=PIECE, batch=32, long_steps=o.gain_steps // 3,
                    truncate=50,
                ),
                silent,
            )  # fmt: skip
        self.told["Latent-KalmanNet"] = {"seconds": time.process_time() - begin}
        encoder = encoder_of(module.hyper, module.arrays())
        filters = Filters(kalmannet.network_of(network.hyper, network.arrays()), model)
        tracks = filters.start(len(self.test.states))
        shape = self.test.states.shape[:2]
        out = Track.empty(shape, model.size, model.rows)
        _, read, _ = latent.run(
            encoder, filters, self.test.images, np.full(shape, model.step_s), tracks,
            out, together=True,
        )  # fmt: skip
        self.row("prior encoder, in the tracker", read)
        self.row("Latent-KalmanNet", out.estimates)


def silent(done: int, most: int, text: str) -> None:
    """Say nothing."""


def decibel(value: Any) -> float:
    return float(10.0 * np.log10(value))


def study(options: Any) -> None:
    scene, out = SCENES[options.scene], Path(options.out)
    found: dict[str, Any] = {"scene": scene.name, "seed": options.seed, "cases": {}}
    for case in options.cases.split(","):
        one = Study(scene, case, options.seed, options)
        one.run()
        found["cases"][case] = {"rows": one.rows, "told": one.told}
        out.write_text(json.dumps(found))
        name = f"{scene.name}_{options.seed}_{list(CASES).index(case)}.npz"
        np.savez_compressed(out.with_name(name), **one.arrays)


# --- The table ------------------------------------------------------------------------------------


def table(files: list[str]) -> None:
    """Pooled over all seeds and trajectories, and the spread over seeds."""
    runs = [json.loads(Path(file).read_text()) for file in files]
    for scene in SCENES:
        own = [run for run in runs if run["scene"] == scene]
        for what in ("read", "state"):
            names: list[str] = []
            for run in own:
                for case in run["cases"].values():
                    names += [n for n, r in case["rows"].items() if n not in names and what in r]
            if not names or (what == "state" and SCENES[scene].numbers == 3):
                continue
            print(f"\n{scene}, {what}\n\n| | {' | '.join(CASES)} |\n|---{'|---' * len(CASES)}|")
            for name in names:
                cells = []
                for case in CASES:
                    seeds = [
                        np.array(run["cases"][case]["rows"][name][what])
                        for run in own
                        if name in run["cases"].get(case, {"rows": {}})["rows"]
                    ]
                    if not seeds:
                        cells.append("")
                        continue
                    each = [decibel(s.mean()) for s in seeds]
                    every = np.concatenate(seeds)
                    cells.append(
                        f"{decibel(every.mean()):.2f} ({min(each):.2f} ... {max(each):.2f}), "
                        f"{decibel(np.median(every)):.2f}, {decibel(every.max()):.2f}"
                    )
                print(f"| {name} | {' | '.join(cells)} |")


def speed() -> None:
    """Images a second."""
    import torch

    from blocks.models.image_encoder import ImageEncoder

    torch.set_num_threads(1)
    module = ImageEncoder(side=SIDE, angles=(True,))
    encoder = encoder_of(module.hyper, module.arrays())
    images = np.random.default_rng(0).random((2000, SIDE, SIDE)).astype(np.float32)
    means, variances = np.empty((2, 2000, 1))
    works: dict[str, tuple[Callable[[], Any], int]] = {
        "ours": (lambda: encoder(images, means, variances), 2000),
        "torch, one image at a time": (lambda: [module(images_t[k : k + 1]) for k in range(200)],
                                       200),
        "torch, 500 at a time": (lambda: [module(part) for part in images_t.split(500)], 2000),
    }  # fmt: skip
    images_t = torch.from_numpy(images)
    least = dict.fromkeys(works, np.inf)
    with torch.no_grad():
        for _ in range(10):
            for name, (work, count) in works.items():
                begin = time.thread_time()
                work()
                least[name] = min(least[name], (time.thread_time() - begin) / count)
    for name, seconds in least.items():
        print(f"{name}: {1.0 / seconds:.0f} images/s, {seconds * 1e6:.1f} us each")


def main() -> None:
    parser = argparse.ArgumentParser(description="tracking what images show")
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("study")
    one.add_argument("--scene", choices=SCENES, required=True)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--out", required=True)
    one.add_argument("--cases", default=",".join(CASES))
    one.add_argument("--steps", type=int, default=1500, help="of the encoder's training")
    one.add_argument("--gain-steps", type=int, default=450, help="of KalmanNet's training; 0: none")
    one.add_argument("--rounds", type=int, default=0, help="of Latent-KalmanNet; 0: without it")
    one.add_argument("--matching", action=argparse.BooleanOptionalAction, default=True)
    one.add_argument("--share", type=float, default=1.0, help="of all trajectories; for a try")
    parts.add_parser("table").add_argument("files", nargs="+")
    parts.add_parser("speed")
    options = parser.parse_args()
    if options.part == "study":
        study(options)
    elif options.part == "table":
        table(options.files)
    else:
        speed()


if __name__ == "__main__":
    main()
