"""The study of trackers: what is simulated and told, and that cells are kept."""

import numpy as np
import pytest

from bench.figures.trackers import tables
from bench.figures.trackers.cells import FULL, Amount, answer, cells, run
from bench.figures.trackers.published import PUBLISHED
from bench.figures.trackers.results import ahead, gathered
from bench.figures.trackers.scenarios import SCENARIOS, Size
from blocks.kernels import state_space

BRIEF = Amount(share=0.02, settings=12)


def test_the_kalman_filter_of_the_linear_table_is_that_of_the_paper():
    (cell,) = cells("linear:20:kalman:0")
    errors = np.array(run(cell, FULL)["mse"])
    assert 10.0 * np.log10(errors.mean()) == pytest.approx(-21.91, abs=0.15)


def test_what_learns_what_tunes_and_what_tests_is_drawn_apart():
    scenario = SCENARIOS["sinusoidal"]
    sets = [
        scenario.simulated(0.0, Size(3, 50), purpose, seed).observations
        for purpose, seed in (("training", 1), ("training", 2), ("held out", 1), ("test", 0))
    ]
    for k, one in enumerate(sets):
        for other in sets[:k]:
            assert not np.isin(one, other).any()


def taylor(x, terms):
    """The paper's step of the attractor, with the A(x) that the study names."""
    A = np.array([[-10.0, 10.0, 0.0], [28.0 - x[2], -1.0, 0.0], [x[1], 0.0, -8.0 / 3.0]])
    total = term = x
    for j in range(1, terms + 1):
        term = 0.02 / j * A @ term
        total = total + term
    return total


@pytest.mark.parametrize(
    ("name", "told", "truth"),
    [
        ("sinusoidal_partial", np.sin, lambda x: 0.9 * np.sin(1.1 * x + 0.1 * np.pi) + 0.01),
        ("lorenz_motion", lambda x: taylor(x, 2), lambda x: taylor(x, 5)),
    ],
    ids=["sinusoidal", "lorenz"],
)
def test_the_model_is_wrong_where_it_is_said_to_be(name, told, truth):
    scenario = SCENARIOS[name]
    before = scenario.simulated(40.0, Size(1, 100), "test").states[0]
    for values, expected in ((scenario.told, told), (scenario.true_values(), truth)):
        model = state_space.build(**values, process_noise=0.0)
        for x in before:
            found = np.zeros((1, model.size))
            model.simulate(found, np.zeros((1, model.rows)), np.full(1, 0.02), x[None].copy())
            np.testing.assert_allclose(found[0], expected(x), rtol=1e-12, atol=1e-12)


def test_what_is_printed_belongs_to_levels_of_noise_that_are_run():
    for name, by_tracker in PUBLISHED.items():
        for printed in by_tracker.values():
            assert set(printed) <= set(SCENARIOS[name].noises)


def test_a_cell_is_run_once_and_stands_in_the_tables(tmp_path):
    (cell,) = cells("lorenz_rotated:10:ekf:0")
    found = answer(cell, tmp_path, BRIEF)
    path = cell.path(tmp_path)
    path.write_text(path.read_text().replace('"title": "', '"title": "kept: '))
    assert answer(cell, tmp_path, BRIEF)["title"] == f"kept: {found['title']}"
    (result,) = gathered(tmp_path).values()
    text = "\n".join(tables.whole(gathered(tmp_path)))
    assert f"| EKF, tuned | {result.median_db:.2f} |" in text
    assert "\n2 trajectories of 1000 steps.\n" in text  # as many as were run; nothing learned


def test_a_tracker_is_ahead_of_one_with_ten_times_its_error_by_10_db(tmp_path):
    (cell,) = cells("linear:0:kalman:0")
    answer(cell, tmp_path, BRIEF)
    (result,) = gathered(tmp_path).values()
    by, half = ahead(result, result._replace(errors=10.0 * result.errors))
    assert by == pytest.approx(10.0)
    assert half == pytest.approx(0.0, abs=1e-9)
