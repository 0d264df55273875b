import math

import numpy as np
import pytest
from needs import recording
from scipy.stats import chi2

from blocks.decoder.mode_s import Modes
from blocks.kernels import geodesy
from blocks.kernels.aircraft import Quantity, Status
from blocks.source.modes_messages import ModesMessages
from blocks.tracker.aircraft import Aircraft, Tracks
from pipeline.block import Context, make
from pipeline.errors import ParameterError
from pipeline.frame import StreamInfo

READS = tuple(Aircraft.signature().reads)
KNOT = 1852.0 / 3600.0
A, B = 0x4D2023, 0x406B90
STARTED, UPDATED, REFUSED, RESTARTED, COASTING, ENDED = Status


def tracker(continuous=True, **values):
    block = make(Aircraft, values, Context(info=StreamInfo(continuous=continuous)))
    block.start()
    return block


def reports(times, address=A, **told):
    """What decoder.modes gives of messages that tell this and nothing else."""
    times = np.asarray(times, float)
    found = {name: np.full(len(times), math.nan) for name in READS}
    found["message_time"] = times
    found["message_address"] = np.full(len(times), address, np.uint32)
    found["on_ground"] = np.full(len(times), -1, np.int8)
    for name, values in told.items():
        found[name] = np.broadcast_to(values, times.shape).astype(found[name].dtype)
    return found


def merged(*parts):
    """Messages in the order of their times."""
    whole = {name: np.concatenate([part[name] for part in parts]) for name in READS}
    order = np.argsort(whole["message_time"], kind="stable")
    return {name: array[order] for name, array in whole.items()}


def follow(messages, block=None, **values):
    return (block or tracker(**values)).process(**messages)


def flown(start, times, velocity=(200.0, 0.0), turn_rate=None):
    """Places and velocities of an aircraft, in small steps; height 0."""
    place, (east, north), turn_rate = start, velocity, turn_rate or (lambda time: 0.0)
    rows, now = [], times[0]
    for time in times:
        while now < time - 1e-9:
            step = min(0.05, time - now)
            latitude, longitude, turn = geodesy.moved(*place, 0.0, east * step, north * step)
            place, turn = (latitude, longitude), turn + turn_rate(now) * step
            c, s = math.cos(turn), math.sin(turn)
            east, north, now = c * east - s * north, s * east + c * north, now + step
        rows.append((*place, east, north))
    return np.array(rows).T


def flight(start, times, address=A, **motion):
    """Exact positions at these times, and velocities 0.2 s later."""
    places = flown(start, times, **motion)
    moving = flown(start, np.concatenate([[times[0]], times + 0.2]), **motion)[2:, 1:]
    speed, track = np.hypot(*moving) / KNOT, np.degrees(np.arctan2(*moving)) % 360.0
    return merged(
        reports(times, address, latitude=places[0], longitude=places[1], containment=25.0,
                altitude=0.0),
        reports(times + 0.2, address, ground_speed=speed, track=track, vertical_rate=0.0),
    )  # fmt: skip


def test_covariances_of_flights_like_the_model_are_borne_out():
    # 150 aircraft fly as the model of straight flight says, reports are as noisy as it says; NEES
    # at the end of each is chi-square of 4 degrees of freedom, and of 600 in all
    rng = np.random.default_rng(3)
    q, sigma_v = 0.5, 0.7
    values = {
        "straight_noise": q, "turn_rate": 0.0, "latency_s": 0.0, "position_share": 0.5,
        "velocity_noise": math.sqrt(sigma_v**2 - KNOT**2 / 12.0), "time_step_s": 0.0,
    }  # fmt: skip
    step = 1852.0 * 60.0 * 360.0 / 2**17
    spread = (0.5 * 0.5 * 25.0 / 2.4477) ** 2 + np.array([
        (step / 60) ** 2 / 12.0, (step / 60) ** 2 / 12.0
    ])  # fmt: skip
    nees, nis = [], []
    for _ in range(150):
        times = np.cumsum(rng.uniform(0.4, 1.5, 40))
        state = np.array([0.0, 0.0, 180.0, -90.0])
        place, seen, velocities = (0.0, 20.0), [], []
        for time, before in zip(times, [times[0], *times], strict=False):
            dt = time - before
            Q = q * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
            F = np.array([[1, dt], [0, 1]])
            state = (np.kron(F, np.eye(2)) @ state) + np.kron(
                np.linalg.cholesky(Q + 1e-15 * np.eye(2)), np.eye(2)
            ) @ rng.standard_normal(4)
            noisy = state[:2] + np.sqrt(spread) * rng.standard_normal(2)
            seen.append(geodesy.moved(*place, 0.0, *noisy)[:2])
            velocities.append(state[2:] + sigma_v * rng.standard_normal(2))
        speed = np.array(velocities).T
        latitude, longitude = np.array(seen).T
        found = follow(
            merged(
                reports(times, latitude=latitude, longitude=longitude, containment=25.0),
                reports(times, ground_speed=np.hypot(*speed) / KNOT,
                        track=np.degrees(np.arctan2(*speed)) % 360.0),
            ),
            **values,
        )  # fmt: skip
        here = geodesy.moved(*place, 0.0, *state[:2])
        off = geodesy.offset(*here[:2], found.track_latitude[-1], found.track_longitude[-1], 0.0)
        error = np.append(off, found.track_velocity[-1, :2] - state[2:])
        P = found.track_covariance[-1][np.ix_([0, 1, 3, 4], [0, 1, 3, 4])]
        nees.append(error @ np.linalg.solve(P, error))
        nis.extend(found.track_nis[2:, :2].ravel())
    low, high = chi2.ppf([0.005, 0.995], 4 * len(nees))
    assert low < sum(nees) < high
    nis = np.array(nis)[np.isfinite(nis)]
    low, high = chi2.ppf([0.005, 0.995], 2 * nis.size)
    assert low < nis.sum() < high


def test_a_turn_is_seen_and_its_end():
    times = np.arange(0.0, 180.0, 1.0)
    rate = math.radians(-2.0)
    messages = flight((50.0, 8.0), times, turn_rate=lambda t: rate if 60.0 <= t < 105.0 else 0.0)
    found = follow(messages)
    turning = np.interp([55.0, 80.0, 175.0], found.track_time, found.track_turning)
    assert turning[0] < 0.1
    assert turning[1] > 0.9
    assert turning[2] < 0.1
    assert np.interp(100.0, found.track_time, found.track_turn_rate) == pytest.approx(-2.0, abs=0.3)
    assert not (found.track_status == REFUSED).any()


def test_an_outlier_is_refused_and_a_jump_starts_the_track_anew():
    times = np.arange(0.0, 60.0, 1.0)
    messages = flight((50.0, 8.0), times)
    odd = np.flatnonzero(np.isfinite(messages["latitude"]))
    messages["latitude"][odd[20]] += 0.01
    messages["latitude"][odd[40:]] += 0.02
    found = follow(messages, refusals=4)
    refused = found.track_refused[:, Quantity.POSITION]
    np.testing.assert_array_equal(np.flatnonzero(refused), odd[[20, 40, 41, 42, 43]])
    assert found.track_status[odd[43]] == RESTARTED
    assert (found.track_status == RESTARTED).sum() == 1
    # altitude comes with the position, and was taken
    assert found.track_status[odd[20]] == UPDATED
    assert found.track_latitude[-1] == pytest.approx(messages["latitude"][odd[-1]], abs=1e-4)
    for row in odd[[22, 45, 50]]:
        assert np.hypot(*found.track_innovation[row, :2]) < 10.0


def test_a_wrong_velocity_and_a_wrong_altitude_are_refused_alone():
    times = np.arange(0.0, 30.0, 1.0)
    messages = flight((50.0, 8.0), times)
    placed = np.flatnonzero(np.isfinite(messages["latitude"]))
    messages["altitude"][placed[20]] = 9000.0
    messages["ground_speed"][placed[25] + 1] += 400.0
    found = follow(messages)
    expected = np.zeros_like(found.track_refused)
    expected[placed[20], Quantity.ALTITUDE] = 1
    expected[placed[25] + 1, Quantity.VELOCITY] = 1
    np.testing.assert_array_equal(found.track_refused, expected)


def test_altitude_and_climb_follow_a_climb():
    times = np.arange(0.0, 60.0, 0.5)
    height = np.round((5000.0 + 1800.0 / 60.0 * times) / 25.0) * 25.0
    found = follow(merged(
        reports(times, latitude=50.0, longitude=8.0, altitude=height, containment=25.0),
        reports(times[5:] + 0.1, vertical_rate=1792.0, ground_speed=0.0),
    ))  # fmt: skip
    assert found.track_altitude[-1] == pytest.approx(5000.0 + 30.0 * found.track_time[-1], abs=20.0)
    assert found.track_velocity[-1, 2] == pytest.approx(1800.0 * 0.3048 / 60.0, abs=0.3)
    silent = follow(reports([0.0], latitude=50.0, longitude=8.0))
    assert np.isnan(silent.track_altitude[0])
    assert np.isnan(silent.track_velocity[0, 2])
    assert np.isnan(silent.track_covariance[0, 2]).all()
    assert np.isfinite(silent.track_covariance[0, :2, :2]).all()


def test_tracks_coast_and_end_at_their_times():
    messages = merged(
        flight((50.0, 8.0), np.arange(0.0, 20.0, 1.0)),
        flight((51.0, 8.0), np.arange(0.0, 120.0, 7.0), B),
    )
    found = follow(messages, coast_s=10.0, end_s=45.0)
    own = found.track_address == A
    events = own & (found.track_status >= COASTING)
    assert found.track_status[events].tolist() == [COASTING, ENDED]
    assert found.track_time[events].tolist() == [29.0, 64.0]
    assert (found.track_status[~own] < COASTING).all()
    # coasting goes on as it flew
    last = np.flatnonzero(own & (found.track_status == UPDATED))[-1]
    row = np.flatnonzero(events)[0]
    away = geodesy.offset(
        found.track_latitude[last], found.track_longitude[last],
        found.track_latitude[row], found.track_longitude[row], 0.0,
    )  # fmt: skip
    assert away == pytest.approx((200.0 * (29.0 - 19.2), 0.0), abs=15.0)
    again = follow(merged(messages, flight((50.5, 8.0), np.arange(121.0, 125.0), A)))
    assert (again.track_status[again.track_address == A] == STARTED).sum() == 2


def test_a_track_starts_with_a_position_and_old_reports_are_passed_over():
    messages = flight((50.0, 8.0), np.arange(0.0, 10.0, 1.0))
    early = reports([-1.0], ground_speed=300.0, track=10.0, altitude=0.0)
    late = {name: array[:2] for name, array in messages.items()}
    whole = {name: np.concatenate([early[name], messages[name], late[name]]) for name in READS}
    found, alone = follow(whole), follow(messages)
    for a, b in zip(found, alone, strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.track_status.tolist() == [STARTED] + [UPDATED] * 19


@pytest.mark.parametrize(
    ("start", "velocity"),
    [((10.0, 179.95), (200.0, 30.0)), ((-20.0, -179.95), (-200.0, 0.0)),
     ((89.93, 10.0), (5.0, 200.0)), ((-89.95, -120.0), (100.0, -150.0))],
)  # fmt: skip
def test_tracks_cross_the_date_line_and_the_poles(start, velocity):
    times = np.arange(0.0, 100.0, 1.0)
    messages = flight(start, times, velocity=velocity)
    found = follow(messages)
    assert np.ptp(found.track_longitude) > 100.0  # it did cross
    assert (np.abs(found.track_longitude) <= 180.0).all()
    assert not found.track_refused.any()
    errors = np.hypot(*found.track_innovation[4:, :2].T)
    assert np.nanmax(errors) < 3.0  # reports are exact; the track is as good as anywhere
    np.testing.assert_allclose(
        np.hypot(*found.track_velocity[4:, :2].T), np.hypot(*velocity), rtol=5e-3
    )


def test_results_do_not_depend_on_the_cut():
    messages = merged(
        flight((50.0, 8.0), np.arange(0.0, 40.0, 1.0)),
        flight((51.0, 8.0), np.arange(0.3, 120.0, 7.0), B),
    )
    whole, block, parts = follow(messages), tracker(), []
    for first in range(0, len(messages["message_time"]), 7):
        if first == 35:  # and a state goes on as the block would have
            state, block = block.state(), tracker()
            block.restore(state)
        parts.append(follow({k: v[first : first + 7] for k, v in messages.items()}, block))
    for a, b in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(a, np.concatenate(b))


def test_a_stream_without_true_times_is_not_tracked():
    found = follow(flight((50.0, 8.0), np.arange(0.0, 10.0, 1.0)), tracker(continuous=False))
    for array, part in zip(found, follow(reports([])), strict=True):
        assert array.shape == part.shape
        assert array.shape[0] == 0


def test_on_the_surface_positions_tell_the_motion():
    times = np.arange(0.0, 30.0, 0.5)
    latitude, longitude, *_ = flown((50.0, 8.0), times, velocity=(10.0, 0.0))
    found = follow(reports(
        times, latitude=latitude, longitude=longitude, containment=25.0, on_ground=1,
        ground_speed=19.0, track=90.0,
    ))  # fmt: skip
    assert found.track_velocity[-1, :2] == pytest.approx((10.0, 0.0), abs=0.3)
    assert not found.track_refused.any()
    assert np.isfinite(found.track_nis[1:, :2]).all()


def test_rounded_times_are_noticed_and_make_room_along_the_way():
    # true times are uniform; the file has them in whole seconds
    rng = np.random.default_rng(5)
    true = np.cumsum(rng.uniform(0.4, 0.6, 300))
    messages = flight((50.0, 8.0), true)
    exact, placed = follow(messages), np.isfinite(messages["latitude"])
    rounded = {**messages, "message_time": np.floor(messages["message_time"])}
    found = follow(rounded)
    assert not found.track_refused.any()
    errors = found.track_innovation[placed][10:, :2]
    # a time within a second, predicted by many: 200 m/s / sqrt(12), and a little
    assert np.std(errors[:, 0]) == pytest.approx(200.0 / math.sqrt(12.0), rel=0.15)
    assert np.abs(errors[:, 1]).max() < 3.0
    assert 0.7 < np.mean(found.track_nis[placed][10:, 0]) < 1.3  # one of the two numbers is exact
    told = follow(rounded, time_step_s=0.0)
    assert told.track_refused.any()
    assert np.abs(exact.track_innovation[placed][10:, :2]).max() < 3.0


def test_parameters_fit_together():
    with pytest.raises(ParameterError, match="must not be below coast_s = 10 s"):
        Aircraft(end_s=5.0)


def test_real_positions_are_foretold_better_than_by_dead_reckoning():
    path = recording("modes/pymodes_sample_data_adsb.csv")
    source = ModesMessages(path=str(path), length=2000)
    source.start()
    decoder = make(Modes, {}, Context(info=source.describe()))
    decoder.start()
    decoded = decoder.process(*source.process())
    source.close()
    found = follow({name: getattr(decoded, name) for name in READS})
    both = np.isfinite(found.track_reckoned[:, 0])
    predicted = np.hypot(*found.track_innovation[both, :2].T)
    reckoned = np.hypot(*found.track_reckoned[both].T)
    assert both.sum() == 930
    assert np.median(predicted) < 0.7 * np.median(reckoned)
    assert np.sqrt(np.mean(predicted**2)) < 0.8 * np.sqrt(np.mean(reckoned**2))
    assert not found.track_refused.any()
    assert 0.9 < np.mean(found.track_nis[both, 0] < chi2.ppf(0.95, 2)) < 1.0
    assert isinstance(found, Tracks)
