"""Meanings of the fields that the blocks of this project share, each declared once.

Dtype and dims stand at each writer, `Annotated[Float32[Array, "*word time"], fields.SAMPLES]`;
what the name means, its unit, and whether it is truth stand here.
"""

from __future__ import annotations

from pipeline.block import Field

SENT = Field("symbols that were sent: +1 or -1 (BPSK), 0 or 1 (OOK), unit-energy QPSK", truth=True)
SAMPLES = Field("received samples, matched-filter output", unit="V")
SYMBOLS = Field("decided symbols, in the alphabet of `sent`")
POSTERIOR = Field("posterior of the trellis states; sums to one over `state`")
LLR = Field("log-likelihood ratio of each bit, positive for bit 1", unit="nat")
SOFT = Field("log-likelihood ratio of each bit, scaled and rounded to -127 ... 127")
BITS = Field("information bits, 0 or 1", truth=True)
CODED = Field("code bits, 0 or 1, in the order of sending", truth=True)
PAYLOAD = Field("decoded information bits, 0 or 1")

STATES = Field("true states of what is tracked, positions first", truth=True)
OBSERVATIONS = Field("what is seen of the states; NaN where nothing came")
INTERVAL = Field("time since the observation before", unit="s")
ESTIMATES = Field("estimated means of the states")
COVARIANCES = Field("covariances of the estimates")
INNOVATIONS = Field("observations less what was predicted, angles wrapped; NaN where nothing came")
NIS = Field("normalised innovation squared, chi-square of as many degrees as rows came")
LOG_LIKELIHOOD = Field("log-density of each observation given those before it", unit="nat")
EFFECTIVE_SIZE = Field("particles that the weights are worth, 1 / sum of their squares")

MAGNITUDE = Field("magnitude of each sample")
CANDIDATES = Field(
    "decided bits of what may be Mode S messages, 0 or 1; of short ones the rest is 0"
)
CANDIDATE_BITS = Field("length of each candidate as its first bit says, 56 or 112", unit="bits")
CANDIDATE_SAMPLE = Field("where the preamble begins, in samples of the stream and their fractions")
CANDIDATE_SCORE = Field("normalised correlation of the samples with a preamble, at most 1")
CANDIDATE_LEVEL = Field("mean magnitude of the pulses, in the unit of the samples")
CANDIDATE_LLR = Field(
    "log-likelihood ratio of each bit of a candidate, positive for bit 1; 0 past the end",
    unit="nat",
)
