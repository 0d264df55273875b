"""Slow, obvious answers that the tests compare with. Nothing here is fast or clever."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.special import logsumexp

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
