"""Slow, obvious answers that the tests compare with. Nothing here is fast or clever."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

# --- Channels with memory: enumeration of all words, and BCJR in the log domain -------------------


def isi_means(symbols, taps, before):
    """Noise-free samples of the words in the rows of `symbols`.

    before   (memory,) what was sent before each word, newest first; 0: nothing
    """
    means = np.zeros(symbols.shape, np.result_type(symbols, np.asarray(taps), float))
    for i in range(symbols.shape[1]):
        for lag, tap in enumerate(taps):
            sent = symbols[:, i - lag] if lag <= i else before[lag - i - 1]
            means[:, i] += tap * sent
    return means


def gaussian_log_likelihood(samples, means, noise_var):
    """log p(samples | means) but for a constant; complex noise has noise_var in both parts."""
    scale = 1.0 if np.iscomplexobj(samples) else 0.5
    return -scale * np.abs(samples - means) ** 2 / noise_var


class Enumerated:
    """Every word that could have been sent, with its probability given the samples.

    alphabet        value of each symbol index
    start, end      "silence", "known" or "unknown"; "unknown" or "known"
    log_likelihood  of (samples, means)

    indices    (n, length)           the words, as symbol indices
    log_p      (n,)                  log of the joint probability, but for a constant
    posterior  (length, n_states)    of the states; the newest symbol counts order^0
    """

    def __init__(self, samples, taps, alphabet, log_likelihood, *, start, end, known=0):
        alphabet = np.asarray(alphabet)
        order, memory, length = alphabet.size, max(len(taps) - 1, 1), len(samples)
        words = np.array(list(itertools.product(range(order), repeat=length)))
        if end == "known":
            words = words[(words[:, max(0, length - len(taps) + 1) :] == known).all(axis=1)]
        pasts = [(known,) * memory]
        if start == "unknown":
            pasts = list(itertools.product(range(order), repeat=memory))
        elif start == "silence":
            pasts = [(0,) * memory]
        indices, log_p, states = [], [], []
        for past in pasts:
            before = np.zeros(memory) if start == "silence" else alphabet[list(past)]
            means = isi_means(alphabet[words], np.asarray(taps), before)
            log_p.append(log_likelihood(np.asarray(samples), means).sum(axis=1))
            indices.append(words)
            sent = np.concatenate([np.tile(past[::-1], (len(words), 1)), words], axis=1)
            states.append(
                np.stack(
                    [
                        sum(sent[:, memory + i - k] * order**k for k in range(memory))
                        for i in range(length)
                    ],
                    axis=1,
                )
            )
        self.indices, self.log_p = np.concatenate(indices), np.concatenate(log_p)
        states, p = np.concatenate(states), np.exp(self.log_p - logsumexp(self.log_p))
        self.posterior = np.stack(
            [np.bincount(column, p, order**memory) for column in states.T]
        ).reshape(length, order**memory)

    def log_p_of(self, indices):
        """log of the probability of one word, of its best past if that is unknown."""
        return self.log_p[(self.indices == indices).all(axis=1)].max()


class EveryWord:
    """Every word over a trellis with given branch metrics, one word's worth of them.

    metrics       (length, n_branches or n_states)
    starts, ends  (n_states,) bool  states before and after the word

    best       (length,)            the word with the least sum of metrics
    costs      (length, n_states)   least sum of metrics of all words through a state
    posterior  (length, n_states)   share of exp(-sum of metrics) of the words through a state
    """

    def __init__(self, metrics, order, starts, ends):
        length, n_states = metrics.shape[0], starts.size
        self.costs = np.full((length, n_states), np.inf)
        self.posterior, least = np.zeros((length, n_states)), np.inf
        for past in np.flatnonzero(starts):
            for symbols in itertools.product(range(order), repeat=length):
                states, state, total = [], past, 0.0
                for symbol, row in zip(symbols, metrics, strict=True):
                    branch = state * order + symbol  # from the definition of branches
                    total += row[branch % len(row)]
                    state = branch % n_states
                    states.append(state)
                if ends[state]:
                    at = range(length), states
                    self.costs[at] = np.minimum(self.costs[at], total)
                    self.posterior[at] += np.exp(-total)
                    if total < least:
                        least, self.best = total, symbols
        self.posterior /= self.posterior.sum(axis=1, keepdims=True)


def bcjr(samples, taps, alphabet, noise_var, *, silence):
    """Posterior of the symbols of each word, (words, length, order): log domain, float64.

    samples   (words, length)
    taps      (n_taps,), or (words, n_taps) for a channel of its own per word
    silence   nothing was sent before the word; otherwise anything
    """
    samples, alphabet = np.asarray(samples), np.asarray(alphabet)
    words, length = samples.shape
    taps = np.broadcast_to(np.atleast_2d(taps), (words, np.shape(taps)[-1]))
    order, memory = alphabet.size, taps.shape[1] - 1
    states = list(itertools.product(range(order), repeat=memory))  # newest symbol first
    # every state has `order` branches out: symbol, after, and the values that it sends
    after = [[states.index((a, *s[:-1])) for a in range(order)] for s in states]
    values = np.array([[[alphabet[k] for k in (a, *s)] for a in range(order)] for s in states])
    log_gamma = np.empty((length, words, len(states), order))
    for i in range(length):
        sent = values.copy()
        if silence:
            sent[:, :, i + 1 :] = 0
        means = np.einsum("sak,wk->wsa", sent, taps)
        log_gamma[i] = gaussian_log_likelihood(samples[:, i, None, None], means, noise_var)
    into = [[(s, a) for s in range(len(states)) for a in range(order) if after[s][a] == t]
            for t in range(len(states))]  # fmt: skip
    from_state = np.array([[s for s, _ in pairs] for pairs in into])
    by_symbol = np.array([[a for _, a in pairs] for pairs in into])
    forward = np.zeros((length + 1, words, len(states)))
    if silence:
        forward[0] = -np.inf
        forward[0, :, states.index((0,) * memory)] = 0.0
    for i in range(length):
        paths = forward[i][:, from_state] + log_gamma[i][:, from_state, by_symbol]
        forward[i + 1] = np.logaddexp.reduce(paths, axis=2)
        forward[i + 1] -= forward[i + 1].max(axis=1, keepdims=True)
    newest = np.array([state[0] for state in states])
    posterior = np.empty((words, length, order))
    backward = np.zeros((words, len(states)))
    for i in range(length - 1, -1, -1):
        joint = forward[i + 1] + backward
        joint -= np.logaddexp.reduce(joint, axis=1)[:, None]
        for a in range(order):
            posterior[:, i, a] = np.exp(joint[:, newest == a]).sum(axis=1)
        backward = np.logaddexp.reduce(log_gamma[i] + backward[:, np.array(after)], axis=2)
        backward -= backward.max(axis=1, keepdims=True)
    return posterior


# --- Shift-register codes: from the definition, by enumeration, and by bounds ---------------------


def code_bits(bits, generators, before=()):
    """Code bits of one word; `before` are the bits before it, the oldest first, and else 0."""
    polynomials = [bin(int(octal, 8))[2:] for octal in generators]
    length = max(map(len, polynomials))
    whole = [0] * length + list(before) + list(bits)
    coded = []
    for i in range(len(whole) - len(bits), len(whole)):
        newest_first = whole[i - length + 1 : i + 1][::-1]
        for digits in polynomials:
            digits = digits.rjust(length, "0")
            coded.append(sum(int(d) * bit for d, bit in zip(digits, newest_first, strict=True)) % 2)
    return coded


def every_code_word(generators, length, ending, start="known"):
    """All words of `length` bits and their code words, (n, length) and (n, size), as 0 and 1.

    ending   "terminated", "tail_biting" or "truncated"; start "unknown": anything before the word
    """
    memory = max(int(octal, 8).bit_length() for octal in generators) - 1
    words, coded = [], []
    for bits in itertools.product((0, 1), repeat=length):
        pasts = itertools.product((0, 1), repeat=memory) if start == "unknown" else [(0,) * memory]
        if ending == "tail_biting":
            pasts = [(bits * memory)[-memory:]]
        for past in pasts:
            tail = (0,) * memory if ending == "terminated" else ()
            words.append(bits)
            coded.append(code_bits((*bits, *tail), generators, past))
    return np.array(words, np.uint8), np.array(coded, np.int64)


def code_spectrum(generators, most):
    """Total information weight of the paths that leave and rejoin the all-zero path, by weight.

    Returns (most + 1,): the entry d is the number of bits 1 on all paths with d code bits 1.
    """
    memory = max(int(octal, 8).bit_length() for octal in generators) - 1
    totals = np.zeros(most + 1)
    alive = {((0,) * memory, 0): (1, 0)}  # (register, code weight) -> paths, their bits 1
    first = True
    while alive:
        step = {}
        for (register, weight), (paths, ones) in alive.items():
            for bit in (1,) if first else (0, 1):
                heavier = weight + sum(code_bits([bit], generators, register))
                after = (*register, bit)[1:]
                if heavier > most:
                    continue
                if not any(after):
                    totals[heavier] += ones + paths * bit
                    continue
                old = step.get((after, heavier), (0, 0))
                step[after, heavier] = (old[0] + paths, old[1] + ones + paths * bit)
        alive, first = step, False
    return totals


def union_bound(generators, ebn0_db, most):
    """Bound on the bit error rate of most likely decoding of BPSK in white noise, up to weight."""
    rate = 1.0 / len(generators)
    weights = np.arange(most + 1)
    pairwise = norm.sf(np.sqrt(2 * weights * rate * 10 ** (ebn0_db / 10)))
    return (code_spectrum(generators, most) * pairwise).sum()


# --- State-space models: textbook loops in float64, and the joint normal distribution -------------


def kalman_filter(observations, F, Q, H, R, mean, covariance):
    """Updated means and covariances, nis and log-likelihood; rows that are NaN are cut out.

    F, Q   (n, n), or (time, n, n)
    """
    F = np.broadcast_to(F, (len(observations), *np.shape(F)[-2:]))
    Q = np.broadcast_to(Q, F.shape)
    x, P = np.asarray(mean, float), np.asarray(covariance, float)
    means, covariances, nis, log_p = [], [], [], []
    for y, f, q in zip(observations, F, Q, strict=True):
        x, P = f @ x, f @ P @ f.T + q
        there = ~np.isnan(y)
        squared = likely = 0.0
        if there.any():
            h, r, e = H[there], R[np.ix_(there, there)], y[there] - H[there] @ x
            S = h @ P @ h.T + r
            K = P @ h.T @ np.linalg.inv(S)
            x, P = x + K @ e, (np.eye(len(x)) - K @ h) @ P
            squared = e @ np.linalg.solve(S, e)
            likely = -0.5 * (squared + np.linalg.slogdet(2.0 * np.pi * S)[1])
        means.append(x)
        covariances.append(P)
        nis.append(squared)
        log_p.append(likely)
    return np.array(means), np.array(covariances), np.array(nis), np.array(log_p)


def normal_posterior(observations, F, Q, H, R, mean, covariance):
    """Means (time, n) and covariances (time, n, n) of all states given all observations.

    No recursion: the joint distribution of the whole trajectory, conditioned on what was seen.
    """
    steps, n = len(observations), len(mean)
    noise_to_state = np.zeros((steps * n, (steps + 1) * n))  # of (x0, w1, w2 ...)
    powers = [np.eye(n)]
    for i in range(steps):
        powers.append(F @ powers[i])
        for k in range(i + 2):
            noise_to_state[i * n : (i + 1) * n, k * n : (k + 1) * n] = powers[i + 1 - k]
    spread = np.kron(np.eye(steps + 1), Q)
    spread[:n, :n] = covariance
    prior = noise_to_state @ spread @ noise_to_state.T
    expected = noise_to_state[:, :n] @ mean
    there = ~np.isnan(observations).ravel()
    seeing = np.kron(np.eye(steps), H)[there]
    S = seeing @ prior @ seeing.T + np.kron(np.eye(steps), R)[np.ix_(there, there)]
    gain = np.linalg.solve(S, seeing @ prior).T
    posterior = prior - gain @ seeing @ prior
    means = expected + gain @ (observations.ravel()[there] - seeing @ expected)
    blocks = [posterior[i * n : (i + 1) * n, i * n : (i + 1) * n] for i in range(steps)]
    return means.reshape(steps, n), np.array(blocks)


def derivative(function, at, step=1e-5):
    """Jacobian by central differences."""
    columns = [
        (function(at + step * axis) - function(at - step * axis)) / (2.0 * step)
        for axis in np.eye(len(at))
    ]
    return np.stack(columns, axis=-1)


# --- Networks -------------------------------------------------------------------------------------


def network(layers, kinds, inputs):
    """Dense layers, (weight, bias) each, in float64; kinds as in blocks/kernels/activations.py."""
    functions = (
        lambda x: x,
        lambda x: np.maximum(x, 0.0),
        lambda x: 1.0 / (1.0 + np.exp(-x)),
        np.tanh,
    )
    x = np.asarray(inputs, np.float64)
    for (weight, bias), kind in zip(layers, kinds, strict=True):
        x = functions[kind](x @ np.asarray(weight, np.float64).T + bias)
    return x
