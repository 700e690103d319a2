"""What a benchmark measures with: seconds, the highest memory of tensors, and the machine's own ceilings."""

import gc
import platform
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def synchronize(device: str) -> None:
    """Wait for what an accelerator was given to do."""
    if device != "cpu":
        torch.accelerator.synchronize()


def seconds(function: Callable[[], object], device: str = "cpu", repeats: int = 1) -> float:
    """Seconds of one call by the clock, the least of `repeats`, after a call that does not count."""
    return min([timed(function, device)[1] for _ in range(1 + repeats)][1:])


def timed(function: Callable[[], object], device: str = "cpu") -> tuple[object, float]:
    """What one call gives, and its seconds by the clock."""
    synchronize(device)
    began = time.perf_counter()
    result = function()
    synchronize(device)
    return result, time.perf_counter() - began


class PeakMemory:
    """Highest bytes of tensors that a block of work allocates beyond those that are there when it begins, in `bytes`.

    On the CPU every allocation of torch is counted, which no other process and no habit of the C library disturbs.
    """

    def __init__(self, device: str):
        self.device = device
        self.bytes = 0

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        if self.device == "cpu":
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.__enter__()
        else:
            self._module = torch.get_device_module(self.device)
            self._module.reset_peak_memory_stats()
            self._before = self._module.memory_allocated()
        return self

    def __exit__(self, kind, error, traceback):
        if self.device != "cpu":
            self.bytes = self._module.max_memory_allocated() - self._before
            return
        self._profile.__exit__(kind, error, traceback)
        events = self._profile.profiler.kineto_results.events()
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        held = 0
        for _, change in changes:
            held += change
            self.bytes = max(self.bytes, held)


def matmul_rate(dtype: torch.dtype, device: str, width: int) -> float:
    """FLOP a second of a large matrix product: the ceiling of whatever is computed."""
    a, b = torch.randn(2, width, width, device=device).to(dtype)
    return 2 * width**3 / seconds(lambda: a @ b, device, repeats=5)


def copy_rate(device: str, size: int) -> float:
    """Bytes a second that are read, and as many written, when memory is copied: the ceiling of whatever is fetched."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return size / seconds(lambda: target.copy_(source), device, repeats=5)


def machine(device: str) -> dict:
    """What stands beside every figure: device, threads, versions, date."""
    import transformers

    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
