import numpy as np
import pytest
import references
from needs import compiled
from numba.core import config

from blocks.kernels import particle, state_space
from blocks.kernels.particle import Cloud

RNG = np.random.default_rng(8)
pytestmark = pytest.mark.filterwarnings("ignore:overflow")
COUNT = 300 if config.DISABLE_JIT else 20_000


def run(model, observations, intervals, count=COUNT, first=0, cloud=None, **keywords):
    out = Cloud.empty((len(observations),), model.size, model.rows)
    particles, weights = cloud or particle.scatter(model, 1, 0, count)
    done = particle.bootstrap(
        model, 2, first, observations, intervals, particles, weights, out, **keywords
    )
    assert done == len(observations)
    return out, (particles, weights)


def linear():
    model = state_space.build(
        "constant_velocity", "position", dimensions=1, process_noise=0.3, initial_variance=2.0
    )
    states, observations = RNG.standard_normal((25, 2)), RNG.standard_normal((25, 1))
    model.simulate(states, observations, np.ones(25), np.array([[1.0, -1.0]]))
    observations[6:9] = np.nan
    return model, observations


def test_many_particles_come_close_to_the_kalman_filter():
    model, observations = linear()
    F, Q, H = model.matrices(np.ones(25))
    means, covariances, _, likely = references.kalman_filter(
        observations, F, Q, H, model.R, model.initial, model.initial_covariance
    )
    out, _ = run(model, observations, np.ones(25))
    deviation = np.sqrt(covariances.diagonal(axis1=1, axis2=2))
    limit = 12.0 / np.sqrt(COUNT)
    assert (np.abs(out.estimates - means) / deviation).max() < limit
    np.testing.assert_allclose(
        out.covariances.diagonal(axis1=1, axis2=2), deviation**2, rtol=2.0 * limit
    )
    np.testing.assert_allclose(out.log_likelihood, likely, atol=2.0 * limit)
    np.testing.assert_allclose(out.log_likelihood[6:9], 0.0, atol=1e-12)
    assert np.isnan(out.innovations[6:9]).all()


def test_a_track_cut_anywhere_gives_the_same():
    model, observations = linear()
    whole, cloud = run(model, observations, np.ones(25), 100, shrink=0.99)
    first, middle = run(model, observations[:11], np.ones(11), 100, shrink=0.99)
    second, end = run(
        model, observations[11:], np.ones(14), 100, first=11, cloud=middle, shrink=0.99
    )
    for array, one, two in zip(whole, first, second, strict=True):
        np.testing.assert_array_equal(array, np.concatenate([one, two]))
    np.testing.assert_array_equal(end[0], cloud[0])


@pytest.mark.parametrize("offset", [0.001, 0.5, 0.999])
def test_each_particle_is_copied_as_often_as_its_weight_says_to_within_one(offset):
    weights = RNG.dirichlet(np.full(200, 0.3))
    particles = np.arange(200.0)[:, None]
    expected = 200 * weights
    particle._resample(weights, offset, particles, np.empty_like(particles))
    copies = np.bincount(particles[:, 0].astype(int), minlength=200)
    assert copies.sum() == 200
    assert (np.abs(copies - expected) <= 1.0).all()
    np.testing.assert_array_equal(weights, 1.0 / 200)


def test_without_resampling_the_weights_degenerate():
    model, observations = linear()
    kept, _ = run(model, observations, np.ones(25), 300, threshold=0.0)
    resampled, (_, weights) = run(model, observations, np.ones(25), 300, threshold=1.0)
    assert kept.effective_size[-1] < resampled.effective_size[-1]
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-12)


@compiled
def test_shrinking_keeps_the_posterior_and_tells_copies_apart():
    # no process noise: without shrinking, the particles become copies of a few
    model = state_space.build("constant_velocity", dimensions=1, process_noise=0.0,
                              initial_variance=2.0)  # fmt: skip
    states, observations = np.zeros((25, 2)), RNG.standard_normal((25, 1))
    model.simulate(states, observations, np.ones(25), np.array([[1.0, -1.0]]))
    _, (copies, _) = run(model, observations, np.ones(25), COUNT // 10)
    out, (apart, _) = run(model, observations, np.ones(25), COUNT // 10, shrink=0.98)
    assert len(np.unique(copies, axis=0)) < len(copies) // 2
    assert len(np.unique(apart, axis=0)) == len(apart)
    F, Q, H = model.matrices(np.ones(25))
    means, covariances, _, _ = references.kalman_filter(
        observations, F, Q, H, model.R, model.initial, model.initial_covariance
    )
    deviation = np.sqrt(covariances[-1].diagonal())
    assert (np.abs(out.estimates[-1] - means[-1]) / deviation).max() < 0.3
    np.testing.assert_allclose(out.covariances[-1].diagonal(), deviation**2, rtol=0.3)


def test_shrinking_leaves_mean_and_covariance_of_the_cloud_where_they_were():
    model, observations = linear()
    out, (particles, weights) = run(model, observations[:1], np.ones(1), threshold=1.0, shrink=0.6)
    np.testing.assert_array_equal(weights, 1.0 / COUNT)
    deviation = np.sqrt(out.covariances[0].diagonal())
    off = (particles.mean(axis=0) - out.estimates[0]) / deviation
    assert np.abs(off).max() < 4.0 / np.sqrt(COUNT)
    scatter = np.cov(particles.T) / np.outer(deviation, deviation)
    expected = out.covariances[0] / np.outer(deviation, deviation)
    np.testing.assert_allclose(scatter, expected, atol=8.0 / np.sqrt(COUNT))


def test_systems_of_every_size_take_the_same_steps(monkeypatch):
    model, observations = linear()
    outs = []
    for limit in (particle.SMALL, 0):
        monkeypatch.setattr(particle, "SMALL", limit)
        outs.append(run(model, observations, np.ones(25), 100, shrink=0.99)[0])
    for unrolled, looped in zip(*outs, strict=True):
        np.testing.assert_array_equal(unrolled, looped)


def test_bearings_are_weighed_around_the_circle():
    model = state_space.build(
        "random_walk", "range_bearing", process_noise=1e-3, observation_noise=(1.0, 1e-2),
        initial_state=(-20.0, 0.0), initial_variance=1.0,
    )  # fmt: skip
    observations = np.array([[20.0, np.pi - 0.01], [20.0, -np.pi + 0.01]] * 5)
    out, _ = run(model, observations, np.ones(10), 2000)
    assert np.abs(out.innovations[:, 1]).max() < 0.1
    np.testing.assert_allclose(out.estimates[-1], [-20.0, 0.0], atol=1.0)


def test_an_observation_that_no_particle_explains_stops_it():
    model, observations = linear()
    observations[4] = np.inf
    out = Cloud.empty((25,), 2, 1)
    cloud = particle.scatter(model, 1, 0, 50)
    assert particle.bootstrap(model, 2, 0, observations, np.ones(25), *cloud, out) == 4
