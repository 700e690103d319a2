"""The device and the dtype that models are asked in."""

import pytest
import torch

from tall_hf.measuring import device
from tall_hf.measuring.device import accelerator_or_cpu, choose_dtype, processor_computes_bfloat16


@pytest.mark.parametrize(
    ("available", "supported", "dtype"),
    [(False, True, torch.float32), (True, False, torch.float32), (True, True, torch.bfloat16)],
)
def test_auto_is_bfloat16_where_it_is_computed_in(monkeypatch, available, supported, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    # Asked without emulation, which is slower than float32.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported or including_emulation
    )
    assert choose_dtype("auto") is dtype


def test_a_dtype_by_name():
    assert (choose_dtype("float32"), choose_dtype("bfloat16")) == (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="'auto', 'float32' or 'bfloat16', got 'int8'"):
        choose_dtype("int8")


def test_the_accelerator_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert accelerator_or_cpu() == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    assert accelerator_or_cpu() == torch.device("xpu")


@pytest.mark.parametrize(("bfloat16", "slow"), [(0.02, True), (0.0015, False), (0.0005, False)])
def test_a_processor_without_bfloat16_is_found_and_said(monkeypatch, caplog, bfloat16, slow):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(device, "_seconds", lambda dtype: bfloat16 if dtype is torch.bfloat16 else 0.001)
    processor_computes_bfloat16.cache_clear()
    try:
        assert processor_computes_bfloat16() is not slow
        with caplog.at_level("WARNING", logger=device.logger.name):
            device.logger.addHandler(caplog.handler)
            choose_dtype("bfloat16")
            assert ("no instructions for bfloat16" in caplog.text) is slow
    finally:
        device.logger.removeHandler(caplog.handler)
        processor_computes_bfloat16.cache_clear()


def test_the_products_tried_take_some_time():
    assert 0 < device._seconds(torch.float32) < 1
