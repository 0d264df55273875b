import threading

import numpy as np
import pytest

from blocks.training.budget import Budget, TooLate


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_what_a_call_returns_or_raises_comes_out(seconds):
    budget = Budget(seconds)
    assert budget.run(lambda: 7) == 7
    assert budget.run(lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        budget.run(lambda: 1 // 0)
    assert not budget.busy
    with np.errstate(all="raise"):
        assert budget.run(lambda: np.float64(1e308) * 10.0) == np.inf


def test_a_call_that_takes_too_long_is_given_up_and_no_second_one_is_made():
    end, ended = threading.Event(), threading.Event()
    made = []

    def endless():
        made.append(1)
        end.wait()
        ended.set()
        return "too late"

    budget = Budget(0.01)
    with pytest.raises(TooLate, match=r"^not done within 0\.01 s$"):
        budget.run(endless)
    assert budget.busy
    with pytest.raises(RuntimeError, match="has not ended"):
        budget.run(endless)
    assert made == [1]
    end.set()
    assert ended.wait(20.0)
    while budget.busy:
        pass
    assert Budget(20.0).run(lambda: 3) == budget.run(lambda: 3) == 3
