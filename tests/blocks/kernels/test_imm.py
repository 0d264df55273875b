import numpy as np
import pytest
from scipy.linalg import expm

from blocks.kernels import imm

#: straight, straight but restless, turning
MODEL = np.array([
    [0.1, 0.0, 0.0, 0.0, 0.5], [4.0, 0.0, 0.0, 0.0, 0.3], [1.0, 0.0, 1e-6, 6e-4, 0.2],
])  # fmt: skip
MEMORY = 20.0


def some_state(seed, model):
    rng = np.random.default_rng(seed)
    count = len(model)
    probabilities = rng.dirichlet(np.ones(count))
    means = rng.normal([0, 0, 200, -100, 0.02], [30, 30, 5, 5, 0.01], (count, 5))
    roots = rng.normal(size=(count, 5, 5)) * np.array([20, 20, 3, 3, 0.01])[:, None]
    covariances = roots @ roots.transpose(0, 2, 1)
    straight = model[:, imm.TURN_VARIANCE] == 0.0
    means[straight, 4] = 0.0
    covariances[straight, 4, :] = covariances[straight, :, 4] = 0.0
    return probabilities, means, covariances


def mixed(interval, model, probabilities, means, covariances):
    """Blom and Bar-Shalom's interaction, as sums over pairs of modes."""
    count = len(model)
    share = model[:, imm.SHARE]
    chain = expm(interval * (np.tile(share, (count, 1)) - np.eye(count)) / MEMORY)
    new = probabilities @ chain
    weights = probabilities[:, None] * chain / new
    out_means, out_covariances = [], []
    for j in range(count):
        turns = model[j, imm.TURN_VARIANCE] > 0.0
        spread = []
        for i in range(count):
            own = covariances[i].copy()
            if turns and model[i, imm.TURN_VARIANCE] == 0.0:
                own[4, 4] = model[j, imm.TURN_VARIANCE]
            spread.append(own)
        mean = weights[:, j] @ means
        off = means - mean
        covariance = np.einsum("i,iab->ab", weights[:, j], np.array(spread))
        covariance += np.einsum("i,ia,ib->ab", weights[:, j], off, off)
        if not turns:
            mean[4] = 0.0
            covariance[4] = covariance[:, 4] = 0.0
        out_means.append(mean)
        out_covariances.append(covariance)
    return new, np.array(out_means), np.array(out_covariances)


def turned(state, interval):
    """Along a circle, integrated as the matrix exponential of x'' = rate x'."""
    rate = state[4]
    A = np.array([[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, -rate], [0, 0, rate, 0]])
    return np.append(expm(interval * A) @ state[:4], rate)


def advanced(interval, model, means, covariances):
    out_means, out_covariances = [], []
    for row, mean, covariance in zip(model, means, covariances, strict=True):
        F = np.empty((5, 5))
        for k, step in enumerate([1e-3, 1e-3, 1e-3, 1e-3, 1e-6]):
            off = np.eye(5)[k] * step
            F[:, k] = (turned(mean + off, interval) - turned(mean - off, interval)) / (2 * step)
        q, walk = row[imm.PROCESS_NOISE], row[imm.TURN_NOISE]
        Q = np.zeros((5, 5))
        block = q * np.array([[interval**3 / 3, interval**2 / 2], [interval**2 / 2, interval]])
        for k in range(2):
            Q[np.ix_([k, 2 + k], [k, 2 + k])] = block
        Q[4, 4] = walk * interval
        out_means.append(turned(mean, interval))
        out_covariances.append(F @ covariance @ F.T + Q)
    return np.array(out_means), np.array(out_covariances)


def updated(first, seen, noise, probabilities, means, covariances):
    H = np.eye(5)[first : first + 2]
    out_means, out_covariances, likely = [], [], []
    for mean, covariance in zip(means, covariances, strict=True):
        S = H @ covariance @ H.T + noise
        K = covariance @ H.T @ np.linalg.inv(S)
        e = seen - H @ mean
        out_means.append(mean + K @ e)
        out_covariances.append((np.eye(5) - K @ H) @ covariance)
        likely.append(np.exp(-0.5 * e @ np.linalg.solve(S, e)) / np.sqrt(np.linalg.det(S)))
    weights = probabilities * likely
    return weights / weights.sum(), np.array(out_means), np.array(out_covariances)


def close(found, expected, rtol=1e-9):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


WORK = np.empty((6, 5, 5))


@pytest.mark.parametrize(
    "model", [MODEL, MODEL[::2] / [1, 1, 1, 1, 0.7], MODEL[:1] / [1, 1, 1, 1, 0.5]]
)
@pytest.mark.parametrize("interval", [0.0, 0.4, 8.0])
def test_interaction_is_that_of_every_pair_of_modes(model, interval):
    state = some_state(1, model)
    expected = mixed(interval, model, *state)
    imm.mix(interval, model, MEMORY, *state, WORK)
    close(state, expected)


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.03])
def test_modes_move_along_circles(rate):
    _, means, covariances = some_state(2, MODEL)
    means[2, 4] = rate
    expected = advanced(1.5, MODEL, means, covariances)
    imm.advance(1.5, MODEL, means, covariances, WORK)
    close((means, covariances), expected, rtol=1e-6)  # of the reference's differences


@pytest.mark.parametrize("first", [0, 2])
def test_an_observation_moves_modes_and_their_probabilities(first):
    state = some_state(3, MODEL)
    seen, noise = (
        np.array([15.0, -40.0]) + state[1][0, first : first + 2],
        np.array([[9, 2], [2, 5.0]]),
    )
    expected = updated(first, seen, noise, *state)
    imm.update(first, seen, noise, *state, WORK)
    close(state, expected)


def test_moments_of_the_mixture_are_those_of_draws_from_it():
    probabilities, means, covariances = some_state(4, MODEL)
    mean, covariance = np.empty(5), np.empty((5, 5))
    imm.combine(probabilities, means, covariances, mean, covariance)
    second = np.einsum("j,jab->ab", probabilities, covariances)
    second += np.einsum("j,ja,jb->ab", probabilities, means, means)
    close((mean, covariance), (probabilities @ means, second - np.outer(mean, mean)), rtol=1e-8)


def test_a_long_prediction_goes_in_equal_steps():
    one, two = some_state(5, MODEL), some_state(5, MODEL)
    imm.predict(5.0, 2.0, MODEL, MEMORY, *one, WORK)
    for _ in range(3):
        imm.mix(5.0 / 3.0, MODEL, MEMORY, *two, WORK)
        imm.advance(5.0 / 3.0, MODEL, *two[1:], WORK)
    close(one, two)


def test_another_origin_changes_no_distance():
    _, means, covariances = some_state(6, MODEL)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    G = np.zeros((5, 5))
    G[:2, :2] = G[2:4, 2:4] = turn
    G[4, 4] = 1.0
    expected = (means - [10.0, -20.0, 0, 0, 0]) @ G.T, G @ covariances @ G.T
    imm.recentre(10.0, -20.0, angle, means, covariances, WORK)
    close((means, covariances), expected)
