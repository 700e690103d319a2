"""The example scripts that need no training."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from tall_hf.microworld import World


EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("seed", [0, 3])
def test_the_little_worlds_text_and_its_held_out_questions(seed, capsys, monkeypatch):
    def lines(*arguments):
        monkeypatch.setattr(sys, "argv", ["microworld_text.py", "--seed", str(seed), *arguments])
        runpy.run_path(str(EXAMPLES / "microworld_text.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    train, held_out = World().records(seed)
    assert lines() == [record.text for record in train]
    assert [json.loads(line) for line in lines("--held-out")] == [
        {"text": record.text, "group": record.kind} for record in held_out
    ]
