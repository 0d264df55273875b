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
HARD = Field("decided code bits, 0 or 1, in the order of sending")
ACCEPTED = Field("whether the decoder found a code word within reach of the decided bits")
CORRECTED = Field("bytes of the word that the decoder changed; -1 where it found no code word")
REENCODED = Field("code bits of the decoded word, 0 or 1; as decided where it was not accepted")
DIFFERENCE = Field(
    "share of the code bits in which decided and re-encoded word differ; NaN: not accepted"
)

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
CANDIDATE_TIME = Field("time in the file, since sample 0 of the stream", unit="s")
CANDIDATE_STATUS = Field(
    "what became of the candidate, by the numbers of kernels/mode_s.Candidate: 0 a message, "
    "1 no format, 2 parity, 3 unknown address, 4 overlap"
)
MESSAGES = Field("bytes of the Mode S messages; of short ones the last 7 are 0")
MESSAGE_BITS = Field("length of the message: 56 or 112", unit="bits")
MESSAGE_SAMPLE = Field("where the preamble begins, as a sample number of the stream")
MESSAGE_TIME = Field("when the message began, since sample 0 of the stream", unit="s")
MESSAGE_FORMAT = Field("downlink format; 24 for all that begin with two ones")
MESSAGE_ADDRESS = Field("address of the transponder, 24 bits")
MESSAGE_INTERROGATOR = Field("interrogator code of format 11, with its label; 0 elsewhere")
MESSAGE_STRICT = Field("whether nothing is left in doubt, as is an interrogator seen hardly before")
TYPE_CODE = Field("type code of extended squitters; -1 elsewhere")
LATITUDE = Field("latitude of the position in the message; NaN where none is known", unit="deg")
LONGITUDE = Field("longitude, -180 ... 180; NaN where none is known", unit="deg")
POSITION_STATUS = Field(
    "how the position was found, by the numbers of kernels/mode_s.Position: 0 none in the message, "
    "1 from a pair, 2 near the last; or why not: 3 alone, 4 zones differ, 5 the first pair, "
    "6 implausible"
)
ALTITUDE = Field("barometric altitude; NaN where the message tells none", unit="ft")
GROUND_SPEED = Field("speed over ground; NaN where the message tells none", unit="kt")
TRACK = Field("direction of motion over ground, clockwise from north; NaN where none", unit="deg")
INDICATED_AIRSPEED = Field("indicated airspeed; NaN where the message tells none", unit="kt")
TRUE_AIRSPEED = Field("true airspeed; NaN where the message tells none", unit="kt")
HEADING = Field("direction of the nose, clockwise from north; NaN where none", unit="deg")
VERTICAL_RATE = Field("rate of climb; NaN where the message tells none", unit="ft/min")
CONTAINMENT = Field("radius that holds the position with near certainty; NaN: none", unit="m")
CALLSIGN = Field("characters of the callsign in ASCII; zeros where the message tells none")
SQUAWK = Field("identity, four octal digits read as a decimal number; -1 where none")
ON_GROUND = Field("1 on the ground, 0 airborne, -1 where the message does not tell")
ODD = Field("grid of the position in the message: 1 odd, 0 even, -1 no position")
CANDIDATE_SCORE = Field("normalised correlation of the samples with a preamble, at most 1")
CANDIDATE_LEVEL = Field("mean magnitude of the pulses, in the unit of the samples")
CANDIDATE_LLR = Field(
    "log-likelihood ratio of each bit of a candidate, positive for bit 1; 0 past the end",
    unit="nat",
)
