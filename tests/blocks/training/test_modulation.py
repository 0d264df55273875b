"""A context that modulates a gain network: folded into weights, and its gradients."""

import numpy as np
import pytest
from needs import package

torch = package("torch", "train")

from blocks.kernels import state_space  # noqa: E402
from blocks.kernels.modulation import modulated  # noqa: E402
from blocks.models.kalmannet import network_of  # noqa: E402
from blocks.models.modulation import Modulated  # noqa: E402
from blocks.training.kalmannet import Unrolled  # noqa: E402
from blocks.training.modulation import Modulation, context_of  # noqa: E402
from blocks.training.trajectories import Trajectories  # noqa: E402

MODEL = state_space.build(
    "canonical", "identity", process_noise=0.1, observation_noise=(1.0, 2.0)
)  # fmt: skip


def modulation(architecture: int, seed: int = 1) -> Modulation:
    torch.manual_seed(seed)
    sizes = {"in_mult": 3, "units": 2} if architecture == 1 else {}
    network = Modulated(network_of(architecture, m=2, n=2, **sizes), (-20.0, 20.0), hidden=4)
    torch.nn.init.normal_(network.outer.weight, std=0.2)
    return Modulation(network, MODEL)


def stretch(noises, steps=6, seed=2) -> Trajectories:
    """Rows whose noise has exactly this mean square, in units of the model's."""
    rng = np.random.default_rng(seed)
    states, noise = rng.standard_normal((2, len(noises), steps, 2)).cumsum(2)
    noise /= np.sqrt((noise**2 / MODEL.R.diagonal()).mean((1, 2), keepdims=True))
    noise *= np.sqrt(noises)[:, None, None]
    return Trajectories(states, states + noise, np.ones((len(noises), steps)))


@pytest.mark.parametrize("architecture", [1, 2])
def test_a_row_is_filtered_as_by_the_weights_for_its_noise(architecture):
    learner = modulation(architecture)
    noises = [0.1, 1.0, 10.0]
    part = stretch(noises)
    starts = part.states[:, 0]
    _, end = learner.judge(learner.start(starts), part)
    for row, noise in enumerate(noises):
        hyper, arrays = modulated(
            learner.network.hyper, learner.network.arrays(), 10.0 * np.log10(noise)
        )
        plain = network_of(**hyper)
        plain.load(arrays)
        unrolled = Unrolled(plain, MODEL)
        one = part.part(slice(row, row + 1), slice(None))
        means, _ = unrolled.forward(
            unrolled.start(starts[row : row + 1]), one.observations, one.intervals
        )
        np.testing.assert_allclose(end[0][row], means[0, -1], rtol=1e-4, atol=1e-5)


def test_beyond_its_range_the_nearest_end_holds():
    network = modulation(2).network
    end, beyond = (modulated(network.hyper, network.arrays(), level)[1] for level in (20.0, 35.0))
    within = modulated(network.hyper, network.arrays(), 10.0)[1]
    for name, array in end.items():
        np.testing.assert_array_equal(array, beyond[name])
    assert any((array != within[name]).any() for name, array in end.items())


def test_fresh_it_leaves_the_gain_network_as_it_is():
    gains = network_of(2, m=2, n=2)
    network = Modulated(gains, (-10.0, 10.0))
    for name, array in modulated(network.hyper, network.arrays(), 7.0)[1].items():
        np.testing.assert_array_equal(array, gains.arrays()[name])


@pytest.mark.parametrize("architecture", [1, 2])
def test_gradients_are_the_slopes_of_the_loss(architecture):
    learner = modulation(architecture)
    part = stretch([0.3, 5.0])
    starts = part.states[:, 0]
    learner.teach(learner.start(starts), part)
    # a step along each parameter's gradient changes the loss by its squared length
    for name, parameter in learner.network.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        length = float(gradient.square().sum())
        if length < 1e-6:
            continue
        step = 3e-3 / length**0.5
        losses = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                parameter += sign * step * gradient
            losses.append(learner.judge(learner.start(starts), part)[0])
            with torch.no_grad():
                parameter -= sign * step * gradient
        slope = (losses[0] - losses[1]) / (2.0 * step)
        assert slope == pytest.approx(length, rel=0.03, abs=2e-5), name


def test_the_context_is_the_mean_squared_noise_in_units_of_the_model():
    learner = modulation(2)
    found = learner._noise_of(stretch([0.5, 20.0]))
    np.testing.assert_allclose(found, [0.5, 20.0], rtol=1e-5)
    np.testing.assert_allclose(context_of(found).numpy(), [-3.0103, 13.0103], atol=1e-3)
