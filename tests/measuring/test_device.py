"""The device and the dtype that models are asked in."""

import pytest
import torch

from tall_hf.measuring.device import accelerator_or_cpu, choose_dtype


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
