"""A clock that jumps back and ahead by hours again and again changes no result, and no checkpoint is deleted for its date."""

import dataclasses
import json

import pytest


def test_the_newest_checkpoint_is_kept_whatever_its_date(trials, training):
    # The best would be kept too, and at the end alone.
    options = ("--save_total_limit=1", "--load_best_model_at_end=False")
    one = dataclasses.replace(training, arguments=lambda folder: (*training.arguments(folder), *options))
    folder = trials.root / "clock-one-checkpoint"
    ended, _, output = trials.run(one, folder, "jumping", clock=True)
    assert ended == {"ended": 0}, output
    assert [path.name for path in (folder / "out").glob("checkpoint-*")] == ["checkpoint-12"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["preparing", "training", "evaluating"])
def test_results_do_not_depend_on_the_clock(request, trials, name):
    job = request.getfixturevalue(name)
    expected = trials.undisturbed(job)
    folder = trials.root / f"clock-{job.name}-jumping"
    ended, _, output = trials.run(job, folder, "jumping", clock=True)
    assert ended == {"ended": 0}, output
    assert job.results(folder) == expected.results
    if name == "evaluating":
        asked = json.loads((folder / "out" / "results.json").read_text("utf-8"))["protocols"]["clean"]["approaches"]
        assert all(found["answering_cost"]["seconds"] >= 0 for found in asked.values())
