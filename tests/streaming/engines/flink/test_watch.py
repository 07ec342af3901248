"""Noticing a job that restarts in circles."""

from streaming.engines.flink.watch import CIRCLE_RESTARTS, CIRCLE_SECONDS, Circles


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_several_restarts_within_the_time_are_circles_and_pass() -> None:
    clock = Clock()
    circles = Circles(clock)
    told = []
    for restarts in range(CIRCLE_RESTARTS + 1):
        told.append(circles.circling("a", restarts))
        clock.now += 5
    assert told == [False] * CIRCLE_RESTARTS + [True]
    clock.now += CIRCLE_SECONDS
    assert not circles.circling("a", CIRCLE_RESTARTS)


def test_restarts_far_apart_are_none() -> None:
    clock = Clock()
    circles = Circles(clock)
    for restarts in range(20):
        assert not circles.circling("a", restarts)
        clock.now += CIRCLE_SECONDS


def test_another_job_and_a_job_manager_started_anew_count_from_the_beginning() -> None:
    circles = Circles(Clock())
    assert not circles.circling("a", 7)
    assert not circles.circling("b", 40)
    assert not circles.circling("b", 0)
    assert circles.circling("b", CIRCLE_RESTARTS)
