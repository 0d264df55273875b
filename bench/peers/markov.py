"""Libraries of hidden Markov models on the ISI channel.

Their states give the samples, so a state has to be an edge of the trellis: twice as many states.
samples (word, time) float32, levels (edge,) noiseless samples, of BPSK (order 2); words start
from symbol 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.peers import Work, versioned


def _chain(levels: Any) -> tuple[Any, Any]:
    """Probabilities of the first edge, and of an edge given the one before."""
    edges = np.arange(levels.size)
    start = np.zeros(levels.size)
    start[:2] = 0.5
    moves = np.zeros((levels.size, levels.size))
    for symbol in range(2):
        moves[edges, edges % (levels.size // 2) * 2 + symbol] = 0.5
    return start, moves


def _hmmlearn(samples: Any, levels: Any, noise_var: Any) -> tuple[Any, Any, list[int]]:
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(levels.size, "spherical", implementation="scaling")
    model.startprob_, model.transmat_ = _chain(levels)
    model.means_ = levels[:, None].astype(np.float64)
    model.covars_ = np.full(levels.size, float(noise_var))
    words, length = samples.shape
    return model, samples.astype(np.float64).reshape(-1, 1), [length] * words


def hmmlearn_viterbi(samples: Any, levels: Any, order: Any, noise_var: Any) -> Work:
    """The most likely sequence, decided symbols (word, time)."""
    model, column, lengths = _hmmlearn(samples, levels, noise_var)

    def run() -> Any:
        return (model.decode(column, lengths)[1] & 1).reshape(samples.shape)

    return Work(run, versioned("hmmlearn"))


def hmmlearn_sum_product(samples: Any, levels: Any, order: Any, noise_var: Any) -> Work:
    """Posteriors in the scaled probability domain, decided."""
    model, column, lengths = _hmmlearn(samples, levels, noise_var)

    def run() -> Any:
        plus = model.predict_proba(column, lengths)[:, 1::2].sum(axis=1)
        return (plus > 0.5).reshape(samples.shape)

    return Work(run, versioned("hmmlearn"))


def _dynamax(samples: Any, levels: Any, noise_var: Any, is_viterbi: bool) -> Work:
    import jax
    import jax.numpy as jnp
    from dynamax.hidden_markov_model import hmm_posterior_mode, hmm_smoother

    start, moves = (jnp.array(p, jnp.float32) for p in _chain(levels))
    means = jnp.array(levels, jnp.float32)

    def one(word: Any) -> Any:
        log_p = -((word[:, None] - means) ** 2) / (2.0 * float(noise_var))
        if is_viterbi:
            return hmm_posterior_mode(start, moves, log_p) & 1
        return hmm_smoother(start, moves, log_p).smoothed_probs[:, 1::2].sum(axis=1) > 0.5

    all_words, given = jax.jit(jax.vmap(one)), jnp.array(samples)
    return Work(lambda: np.asarray(all_words(given)), versioned("dynamax"))


def dynamax_viterbi(samples: Any, levels: Any, order: Any, noise_var: Any) -> Work:
    """The most likely sequence, jit and vmap over words."""
    return _dynamax(samples, levels, noise_var, True)


def dynamax_sum_product(samples: Any, levels: Any, order: Any, noise_var: Any) -> Work:
    """Smoothed probabilities, decided; jit and vmap over words."""
    return _dynamax(samples, levels, noise_var, False)
