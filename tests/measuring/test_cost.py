"""What work costs: seconds and peak memory, of the process and of an accelerator, kept while they grow."""

import dataclasses
import json
import time
import types

import torch

from tall_hf.measuring import cost as cost_module
from tall_hf.measuring.cost import Cost, CostMeter


def test_the_peak_of_memory_is_seen_although_it_is_given_back():
    with CostMeter() as meter:
        before = meter._peak
        block = torch.ones(64 * 2**20)  # 256 MiB, and the pages are touched
        time.sleep(0.1)
        del block
    assert meter.cost.peak_memory - before > 200 * 2**20
    assert 0.1 <= meter.cost.seconds < 10


def accelerator(monkeypatch, **functions):
    """Makes torch see an accelerator whose module has these functions."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))
    module = types.SimpleNamespace(synchronize=lambda: None, **functions)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)


def test_memory_of_an_accelerator_that_knows_its_peak(monkeypatch):
    peak = [9]
    accelerator(
        monkeypatch,
        max_memory_allocated=lambda: peak[0],
        reset_peak_memory_stats=lambda: peak.__setitem__(0, 0),
    )
    with CostMeter() as meter:
        peak[0] = 5
    assert meter.cost.peak_accelerator_memory == 5


def test_memory_of_an_accelerator_that_knows_the_present_only(monkeypatch):
    present = [3]
    accelerator(monkeypatch, current_allocated_memory=lambda: present[0])
    with CostMeter() as meter:
        present[0] = 8
        time.sleep(0.2)
        present[0] = 1
    assert meter.cost.peak_accelerator_memory == 8


def test_the_cost_so_far_is_kept_while_it_grows(monkeypatch):
    monkeypatch.setattr(cost_module, "_KEPT_EVERY", 0.0)
    kept = []
    with CostMeter(kept.append) as meter:
        time.sleep(0.2)
    seconds = [cost.seconds for cost in kept]
    assert len(kept) > 1 and 0 < seconds[0] < seconds[-1] <= meter.cost.seconds
    assert kept[-1].peak_memory > 0 and kept[-1].peak_accelerator_memory is None


def test_costs_add_up():
    total = Cost(1.5, 10, None) + Cost(2.0, 7, 3)
    assert total == Cost(3.5, 10, 3)
    assert Cost(**json.loads(json.dumps(dataclasses.asdict(total)))) == total
