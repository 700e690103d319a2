"""Two processes on one output: the second is refused and told whose it is, until the first is killed."""

import os
import signal

import pytest


def begun(expected, job):
    """A write in the middle of a job's work, in which it is stopped."""
    writes = sorted(expected.writes(job))
    return {"write": writes[len(writes) // 2], "buffer": 0, "do": "stop"}


@pytest.mark.parametrize(
    "name",
    [
        "preparing",
        pytest.param("training", marks=pytest.mark.slow),
        pytest.param("evaluating", marks=pytest.mark.slow),
        pytest.param("composing", marks=pytest.mark.slow),
    ],
)
def test_the_second_is_refused_until_the_first_is_killed(request, trials, name):
    job = request.getfixturevalue(name)
    expected = trials.undisturbed(job)
    folder = trials.root / f"{job.name}-twice"
    first = trials.start(job, folder, "first", fault=begun(expected, job))
    assert trials.runner.wait(first) == {"stopped": signal.SIGSTOP}
    ended, _, output = trials.run(job, folder, "second")
    said = output.replace("\n", " ")
    assert ended == {"ended": 1}, output
    assert f"Error: Another process (pid {first}) is at work in {folder}" in said and "Traceback" not in said
    os.killpg(first, signal.SIGKILL)
    assert trials.runner.wait(first) == {"ended": -signal.SIGKILL}
    ended, _, output = trials.run(job, folder, "third")
    assert ended == {"ended": 0}, output
    assert job.results(folder) == expected.results


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_two_who_publish_one_is_told_of_the_other(publishing_trials, publishing_job):
    """The first is stopped while a file goes up; meanwhile the second is done."""
    trials, job = publishing_trials, publishing_job
    expected = trials.undisturbed(job)
    folder = trials.root / "published-by-two"
    job.before(folder)
    first = trials.start(job, folder, "first", fault=begun(expected, job))
    assert trials.runner.wait(first) == {"stopped": signal.SIGSTOP}
    ended, _, output = trials.run(job, folder, "second")
    assert ended == {"ended": 0}, output
    os.kill(first, signal.SIGCONT)
    assert trials.runner.wait(first) == {"ended": 1}
    assert "was changed by somebody else at the same time" in trials.output(folder, "first").replace("\n", " ")
    assert job.results(folder) == expected.results
