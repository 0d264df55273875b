"""How the neural-augmented smoother learns: gradients through the smoother, and what is judged."""

import numpy as np
import pytest
from needs import compiled, package
from tracking import drawn

torch = package("torch", "train")

from blocks.kernels import state_space  # noqa: E402
from blocks.kernels.neural_augmented import GraphNetwork, NeuralSmoother  # noqa: E402
from blocks.models.neural_augmented import GraphNetwork as Module  # noqa: E402
from blocks.training.neural_augmented import Smoothing, _solved, measure  # noqa: E402
from blocks.training.trajectories import Trajectories  # noqa: E402

MODELS = {
    "lorenz": {"motion": "lorenz_taylor", "observation": "identity", "step_s": 0.02,
               "process_noise": 0.05},
    "spherical": {"motion": "lorenz_rk4", "observation": "spherical", "step_s": 0.02,
                  "process_noise": 0.05, "observation_noise": (1.0, 0.01, 0.01),
                  "initial_state": (5.0, 7.0, 20.0), "initial_variance": 2.0},
    "position": {"motion": "constant_velocity", "observation_covariance": ((1.0, 0.4), (0.4, 2.0)),
                 "initial_variance": 1.0},
}  # fmt: skip
SMALL = {"width": 8, "wide": 12, "iterations": 2, "rate": 1e-3}


def simulated(model, count, length):
    return Trajectories(*drawn(model, count, length, 3, missing=0.2))


@compiled
@pytest.mark.parametrize("values", MODELS.values(), ids=MODELS)
def test_gradients_through_the_smoother_are_those_of_small_differences(values):
    model = state_space.build(**values)
    data = simulated(model, 2, 9)
    rng = np.random.default_rng(4)
    around = np.concatenate((np.tile(model.initial, (2, 1, 1)), data.states), 1)
    around += 0.1 * rng.standard_normal(around.shape)
    starts = Smoothing(None, model).start(np.tile(model.initial, (2, 1)))
    ends = tuple(array.copy() for array in starts)
    told = [
        torch.tensor(0.1 * rng.standard_normal((2, 9, *rest)), requires_grad=True)
        for rest in ((model.size,), (model.rows,), ())
    ]
    assert torch.autograd.gradcheck(
        lambda *told: _solved(
            *told, around, model, data.observations, data.intervals, starts, ends
        ),
        told, atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("step", ["newton", "gradient", "network"])
def test_what_is_judged_is_what_numba_serves(step):
    model = state_space.build(**MODELS["lorenz"])
    data = simulated(model, 2, 20)
    start = "observations" if step == "network" else "smoother"
    torch.manual_seed(1)
    network = Module(3, 3, step=step, start=start, **SMALL)
    learner = Smoothing(network, model, measure(network, model, data))
    loss, _ = learner.teach(learner.start(np.ones((2, 3))), data)
    assert loss > 0.0
    assert all(p.grad is not None for name, p in network.named_parameters()
               if step == "newton" or name != "log_scale")  # fmt: skip
    made = NeuralSmoother(GraphNetwork.of(network.hyper, network.arrays()), model)
    errors = [
        np.square(made.run(seen, intervals, np.ones(3), np.zeros((3, 3))).states - states).mean()
        for states, seen, intervals in zip(*data, strict=True)
    ]
    np.testing.assert_allclose(learner.judged(data, np.ones((2, 3))), np.mean(errors))


def test_where_a_record_goes_on_does_not_depend_on_who_smoothed_it():
    model = state_space.build(**MODELS["lorenz"])
    data = simulated(model, 2, 20)
    torch.manual_seed(1)
    network = Module(3, 3, **SMALL)
    learner = Smoothing(network, model, measure(network, model, data))
    begin = learner.start(np.ones((2, 3)))
    ends = learner.teach(begin, data)[1], learner.judge(begin, data)[1]
    for taught, judged in zip(*ends, strict=True):
        np.testing.assert_allclose(taught, judged, rtol=1e-4, atol=1e-5)
