"""A sweep of real commands, on the smallest grid there is: everything runs, and the report has its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tall_hf.microworld import World, component_path


ROOT = Path(__file__).parents[2]
GRID = ROOT / "examples" / "sweeps" / "smoke.yaml"


@pytest.mark.slow
def test_the_smoke_grid_from_text_to_table(tmp_path):
    train, held_out = World().records(0)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "smoke.txt").write_text("".join(f"{one.text}\n" for one in train[:300]), "utf-8")
    lines = [json.dumps({"text": one.text}, ensure_ascii=False) for one in held_out[:20]]
    (tmp_path / "outputs" / "smoke.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    command = [sys.executable, "-m", "tall_hf.cli", "sweep", str(GRID), "--output", "out"]
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PARTS": str(component_path("llm").parent), "PYTHONPATH": python_path}
    # What a step of each row takes, of the same folder.
    timing = [sys.executable, "-m", "benchmarks.sweep_steps", str(GRID), "--output", "out", "--repeats", "1"]
    early = subprocess.run(timing, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert early.returncode == 2 and "gated, is not composed and prepared there yet" in early.stderr, early.stderr
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["rows"]
    assert set(rows) == {"gated", "width_64", "warmup", "after_warmup", "pretrained_alignment", "look_ahead"}
    assert rows["gated"]["seeds_done"] == 2 and rows["gated"]["questions"] == 20
    assert rows["width_64"]["trainable_parameters"] < rows["gated"]["trainable_parameters"]
    # Two steps of eight sentences each, after as many.
    assert (rows["after_warmup"]["steps"], rows["after_warmup"]["samples"]) == (4, 32)
    assert rows["warmup"]["accuracy"] is None and rows["after_warmup"]["comparison_seeds"] == 1
    assert all(row["peak_memory"] > 2**28 and row["processor_seconds"] > 1 for row in rows.values())
    assert (tmp_path / "out" / "report.png").stat().st_size > 5000
    again = subprocess.run([*command, "--list"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "missing" not in again.stdout and "failed" not in again.stdout
    subprocess.run([*timing, "--json", "steps.json"], cwd=tmp_path, env=environment, check=True)
    seconds = json.loads((tmp_path / "steps.json").read_text("utf-8"))["seconds"]
    assert set(seconds) == set(rows) and all(one > 0 for one in seconds.values())
