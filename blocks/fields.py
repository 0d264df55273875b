"""Meanings of the fields that the blocks of this project share, each declared once.

Dtype and dims stand at each writer, `Annotated[Float32[Array, "*word time"], fields.SAMPLES]`;
what the name means, its unit, and whether it is truth stand here.
"""

from __future__ import annotations

from pipeline.block import Field

SENT = Field("symbols that were sent: +1 or -1 (BPSK), 0 or 1 (OOK), unit-energy QPSK", truth=True)
SAMPLES = Field("received samples, matched-filter output", unit="V")
TAG_SAMPLE = Field("numbers of the samples that have tags of GNU Radio, in order")
TAGS = Field("the tags: PMT bytes of key, value and who set it, one tag after another")
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
PILOT = Field("whether the word is a pilot, whose bits the receiver knew beforehand")

STATES = Field("true states of what is tracked, positions first", truth=True)
OBSERVATIONS = Field("what is seen of the states; NaN where nothing came")
OBSERVATION_VARIANCES = Field("how far each observation is expected to be off, squared")
IMAGES = Field("what a camera sees of the states; black is 0, white 1")
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

SENT_MESSAGES = Field(
    "bytes of the messages that were sent; of short ones the last 7 are 0", truth=True
)
SENT_BITS = Field("length of the message that was sent, 56 or 112", unit="bits", truth=True)
SENT_SAMPLE = Field(
    "where its preamble begins, in samples of the stream and their fractions", truth=True
)
SENT_SNR = Field(
    "power at the top of its pulses, before the receiver's filter, over that of the noise in a "
    "complex sample",
    unit="dB", truth=True,
)  # fmt: skip
SENT_ADDRESS = Field("address of the transponder that sent it", truth=True)
SENT_LATITUDE = Field("latitude of its aircraft at that moment", unit="deg", truth=True)
SENT_LONGITUDE = Field("longitude of its aircraft, -180 ... 180", unit="deg", truth=True)
SENT_ALTITUDE = Field("altitude of its aircraft", unit="ft", truth=True)
SENT_GROUND_SPEED = Field("speed of its aircraft over ground", unit="kt", truth=True)
SENT_TRACK = Field("direction of its motion, clockwise from north", unit="deg", truth=True)
SENT_VERTICAL_RATE = Field("rate of climb of its aircraft", unit="ft/min", truth=True)

TRACK_ADDRESS = Field("address of the aircraft that is tracked, 24 bits")
TRACK_TIME = Field("time of the track, since sample 0 of the stream", unit="s")
TRACK_STATUS = Field(
    "what the row tells, by the numbers of kernels/aircraft.Status: 0 the track started, 1 took "
    "something of a report, 2 refused all of it, 3 started anew; without a report: 4 it coasts, "
    "5 it ended"
)
TRACK_LATITUDE = Field("estimated latitude", unit="deg")
TRACK_LONGITUDE = Field("estimated longitude, -180 ... 180", unit="deg")
TRACK_ALTITUDE = Field("estimated barometric altitude; NaN where none was told", unit="ft")
TRACK_VELOCITY = Field("estimated velocity east, north and up; up NaN as the altitude", unit="m/s")
TRACK_COVARIANCE = Field(
    "covariance of the estimated position, east, north and up [m^2], and of the velocity [m^2/s^2]"
)
TRACK_TURN_RATE = Field("estimated rate of turn, counterclockwise from above", unit="deg/s")
TRACK_TURNING = Field("probability that the aircraft turns or changes its speed")
TRACK_INNOVATION = Field(
    "what the report told less what was predicted, in the order of track_covariance [m, m/s]; "
    "NaN where it told nothing"
)
TRACK_NIS = Field(
    "normalised innovation squared of position and velocity (chi-square of 2 degrees of freedom), "
    "altitude and vertical rate (of 1); NaN where nothing was told"
)
TRACK_LOG_LIKELIHOOD = Field(
    "log-density of what was told, given all before: position, velocity, altitude, vertical rate; "
    "NaN where nothing was",
    unit="nat",
)
TRACK_REFUSED = Field("1 where the report's position, velocity, altitude, climb were refused")
TRACK_RECKONED = Field(
    "position told less dead reckoning from the position and velocity told last, east and north; "
    "NaN where none was told",
    unit="m",
)

LINE_BITS = Field(
    "decided bits as the line has them, before NRZI and the scrambler are undone, 0 or 1; each "
    "lane is one way to decide; 255: none"
)
BIT_SAMPLE = Field("middle of each bit, as a sample number of the stream; NaN where none")
PACKET_BYTES = Field("bytes of each packet, without its check; zeros past its length")
PACKET_LENGTH = Field("length of the packet", unit="bytes")
PACKET_SAMPLE = Field("middle of the first bit after the opening flag, as a sample number")
PACKET_LANE = Field("the lane that the packet came from")
HDLC_FRAMES = Field(
    "frames between flags in this frame of each lane, by the numbers of kernels/hdlc.Outcome: "
    "0 good, 1 wrong check, 2 aborted, 3 no whole bytes or too long"
)
PACKET_VALID = Field("1 for a packet of AX.25; 0: it begins with no addresses, the rest is void")
PACKET_DESTINATION = Field("callsign and SSID that the packet is for, in ASCII; zeros past the end")
PACKET_SOURCE = Field("callsign and SSID that the packet is from, in ASCII; zeros past the end")
PACKET_DIGIPEATERS = Field("callsigns and SSIDs of those who are to send it on, in ASCII")
PACKET_REPEATED = Field("whether each digipeater has sent it on, 1 or 0; -1: no such digipeater")
PACKET_COMMAND = Field("1 a command, 0 a response, -1 neither, as before version 2")
PACKET_CONTROL = Field("control byte: the type of the packet, and its numbers")
PACKET_PID = Field("protocol of the information; -1 where the type has none")
PACKET_INFO = Field("where the information begins in the bytes of the packet", unit="bytes")

SENT_PACKET_BYTES = Field("bytes of each packet that was sent, zeros past its length", truth=True)
SENT_PACKET_LENGTH = Field("length of the packet that was sent", unit="bytes", truth=True)
SENT_PACKET_SAMPLE = Field(
    "middle of the first bit after the opening flag, as a sample number", truth=True
)
SENT_PACKET_EB_N0 = Field(
    "energy per bit over noise density, as it is received", unit="dB", truth=True
)
SENT_PACKET_CLEAR = Field("1 where nothing else was sent meanwhile, 0 where it was", truth=True)
SENT_PACKET_LATITUDE = Field("true latitude of the sender; NaN: not sent", unit="deg", truth=True)
SENT_PACKET_LONGITUDE = Field("true longitude of the sender; NaN: not sent", unit="deg", truth=True)
MESSAGE_TYPE = Field("type of the AIS message, 1 ... 27; 0 where the packet is none")
MMSI = Field("number of the station that sent the message; 0 where the packet is no message")
SHIP_NAME = Field("characters of the ship's name in ASCII; zeros where the message tells none")
SHIP_TYPE = Field("type of ship and cargo, 0 ... 99; -1 where the message tells none")
NAVIGATION_STATUS = Field("navigational status, 0 ... 15; -1 where the message tells none")
