"""How recurrent trackers learn: gradients against differences, and the block against training."""

import numpy as np
import pytest
from needs import package
from tracking import SPHERICAL, served
from tracking import simulated as source_frame

torch = package("torch", "train")

from blocks.kernels import state_space  # noqa: E402
from blocks.kernels.recurrent_filter import SEES  # noqa: E402
from blocks.models.recurrent_filter import RecurrentTracker  # noqa: E402
from blocks.tracker.recurrent import Recurrent as Block  # noqa: E402
from blocks.trainer.recurrent_filter import fit  # noqa: E402
from blocks.training.recurrent_filter import Recurrent  # noqa: E402
from blocks.training.trajectories import Trajectories  # noqa: E402
from pipeline.train import Lessons  # noqa: E402
from pipeline.weights import Weights  # noqa: E402


def simulated(count, length, seed):
    fields = source_frame(words=count, length=length, **SPHERICAL)
    seen = fields["observations"].copy()
    rng = np.random.default_rng(seed)
    seen[rng.random(seen.shape) < 0.2] = np.nan
    seen[:2, 3] = np.nan
    return Trajectories(fields["states"], seen, np.full(seen.shape[:2], 0.02))


def learner_of(sees, kind=torch.float64):
    torch.manual_seed(4)
    model = state_space.build(**SPHERICAL)
    network = RecurrentTracker(sees=sees, m=3, n=3, wide=6, units=5).to(kind)
    learner = Recurrent(network, model)
    learner.scale(simulated(20, 30, 1))
    return learner


@pytest.mark.parametrize("sees", SEES)
def test_gradients_are_those_of_differences(sees):
    learner, part = learner_of(sees), simulated(4, 7, 3)
    starts = np.tile(learner.model.initial, (4, 1))
    learner.teach(learner.start(starts), part)

    def loss():
        return learner.judge(learner.start(starts), part)[0]

    for name, parameter in learner.network.named_parameters():
        numbers = parameter.detach().numpy().reshape(-1)
        for k in np.random.default_rng(5).choice(numbers.size, min(4, numbers.size), False):
            kept, step = numbers[k], 1e-6
            numbers[k] = kept + step
            above = loss()
            numbers[k] = kept - step
            slope = (above - loss()) / (2.0 * step)
            numbers[k] = kept
            found = parameter.grad.reshape(-1)[k].item()
            assert found == pytest.approx(slope, rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("sees", SEES)
def test_the_block_tracks_as_it_was_trained(sees):
    learner, part = learner_of(sees, torch.float32), simulated(4, 25, 6)
    expected, _ = learner.forward(
        learner.start(np.tile(learner.model.initial, (4, 1))), part.observations, part.intervals
    )
    network = learner.network
    block = served(Block, Weights("rnn", 1, network.arrays(), network.hyper), **SPHERICAL)
    found = block.process(part.observations)
    np.testing.assert_allclose(found.estimates, expected, rtol=2e-4, atol=2e-3)


def test_a_vanilla_network_learns_to_average_what_it_sees():
    # a state at rest, seen in noise: after 10 observations their mean has a tenth of the variance
    values = {"motion": "random_walk", "dimensions": 1, "observation": "identity",
              "process_noise": 0.0}  # fmt: skip
    rng = np.random.default_rng(8)

    def record(count):
        states = np.tile(rng.standard_normal((count, 1, 1)), (1, 12, 1))
        return {"states": states, "observations": states + rng.standard_normal((count, 12, 1))}

    block = Block(**values)
    learnt = fit(
        block, Lessons([record(2000)], [record(200)], 1), sees="observations", wide=16, units=8,
        steps=300, piece=11, batch=64, long_steps=0, rate=1e-2,
    )  # fmt: skip
    block.start()
    block.take(Weights("rnn", 1, learnt.arrays, learnt.hyper))
    test = record(2000)
    off = block.process(test["observations"]).estimates - test["states"]
    # the state is N(0, 1), so with k observations the least possible error is 1 / (k + 1)
    assert np.square(off[:, 11]).mean() < 1.3 / 13.0
