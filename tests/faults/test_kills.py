"""Commands killed at points that seeds draw, also in the middle of a file, and called again: equal to undisturbed ones.

With FAULTS_REPORT=FILE each trial leaves a line of JSON there; `python tests/faults/fault_table.py FILE` makes the table of
docs/guarantees.md of them.
"""

import dataclasses

import pytest


# Trials of each job: killed at any moment of its work, and in the middle of a file.
MOMENTS, WRITES = 4, 6


def check(trials, job, seeds, in_write):
    lines = [trials.killed(job, seed, in_write) for seed in seeds]
    for line in lines:
        assert line["equal"], line
        assert line["killed"] or not in_write, line
        # A whole interval is done again where it was complete and the kill fell on the writing of its checkpoint or shard, which
        # no trainer does among its steps.
        complete = line["done"] % line["interval"] == 0 and line["phase"] != "training"
        assert line["redone"] < line["interval"] or (complete and line["redone"] == line["interval"]), line
        if in_write:
            assert line["inside"] and line["writing"], line
    return lines


def test_a_fork_is_a_process_of_its_own(runner):
    assert runner.threads == 1


@pytest.mark.parametrize("in_write", [False, True], ids=["moment", "write"])
@pytest.mark.parametrize("name", ["translating", "training"])
def test_one_kill(request, trials, name, in_write):
    check(trials, request.getfixturevalue(name), [0], in_write)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("in_write", [False, True], ids=["moment", "write"])
@pytest.mark.parametrize("name", ["translating", "training", "checkpointing", "evaluating"])
def test_many_kills(request, trials, name, in_write):
    # On a busy machine a kill at a moment comes late. With half of them, at least 40 of all trials are inside the work.
    lines = check(trials, request.getfixturevalue(name), range(1, 1 + (WRITES if in_write else MOMENTS)), in_write)
    assert sum(line["inside"] for line in lines) >= len(lines) / 2, lines


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("in_write", [False, True], ids=["moment", "write"])
def test_kills_of_what_comes_before_and_after_translating(trials, preparing, in_write):
    check(trials, preparing, [1, 2], in_write)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kills_between_checkpoints(trials, training):
    """Half of the moments above are of saving, and files are written nowhere else; these are of the steps."""
    steps = dataclasses.replace(training, name="step", phases=("training",))
    lines = check(trials, steps, range(1, 1 + MOMENTS), False)
    assert sum(line["inside"] for line in lines) >= len(lines) - 1, lines
    assert any(line["redone"] for line in lines), lines


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("in_write", [False, True], ids=["moment", "write"])
def test_many_kills_of_publishing(publishing_trials, publishing_job, in_write):
    lines = check(publishing_trials, publishing_job, range(1, 1 + (WRITES if in_write else MOMENTS)), in_write)
    assert sum(line["inside"] for line in lines) >= len(lines) / 2, lines
