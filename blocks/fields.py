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
