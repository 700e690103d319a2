"""What a piece of work costs: its seconds, and the memory at its highest."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch


# Seconds between two looks at the resident memory.
_INTERVAL = 0.02
# Seconds between two calls of `keep`.
_KEPT_EVERY = 5.0


@dataclass(frozen=True)
class Cost:
    """Time and memory of some work.

    Attributes:
        seconds: by the clock, added up over interruptions.
        peak_memory: highest resident memory of the whole process in bytes. It holds what all work
            shares, such as the libraries, and what Python has not given back of earlier work.
        peak_accelerator_memory: highest memory of tensors on the accelerator in bytes, 0 for work that does not use it;
            None without an accelerator.
    """

    seconds: float = 0.0
    peak_memory: int = 0
    peak_accelerator_memory: int | None = None

    def __add__(self, other: "Cost") -> "Cost":
        on_accelerator = [
            peak for peak in (self.peak_accelerator_memory, other.peak_accelerator_memory) if peak is not None
        ]
        return Cost(
            self.seconds + other.seconds,
            max(self.peak_memory, other.peak_memory),
            max(on_accelerator, default=None),
        )


class CostMeter:
    """Measures what is done inside `with CostMeter() as meter:`; afterwards `meter.cost` holds it, also after an error.

    Args:
        keep: called with the cost so far every few seconds, from another thread, for work that may be killed.
    """

    def __init__(self, keep: Callable[[Cost], None] | None = None):
        self.cost = Cost()
        self._keep = keep

    def __enter__(self):
        self._process = psutil.Process()
        self._accelerator = _Accelerator() if torch.accelerator.is_available() else None
        self._peak, self._accelerator_peak = 0, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._start = time.perf_counter()
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind, error, traceback):
        if self._accelerator is not None:
            self._accelerator.synchronize()
        seconds = time.perf_counter() - self._start
        self._done.set()
        self._thread.join()
        self._look()
        self.cost = self._cost(seconds)

    def _watch(self):
        kept = self._start
        while not self._done.wait(_INTERVAL):
            self._look()
            now = time.perf_counter()
            if self._keep is not None and now - kept >= _KEPT_EVERY:
                kept = now
                self._keep(self._cost(now - self._start))

    def _look(self):
        self._peak = max(self._peak, self._process.memory_info().rss)
        if self._accelerator is not None:
            self._accelerator_peak = max(self._accelerator_peak, self._accelerator.peak())

    def _cost(self, seconds: float) -> Cost:
        return Cost(seconds, self._peak, None if self._accelerator is None else self._accelerator_peak)


class _Accelerator:
    """The memory of tensors on CUDA, XPU or MPS, from now on; of MPS torch tells the present one only."""

    def __init__(self):
        self._module = torch.get_device_module(torch.accelerator.current_accelerator())
        self._knows_peak = hasattr(self._module, "max_memory_allocated")
        if self._knows_peak:
            self._module.reset_peak_memory_stats()

    def peak(self) -> int:
        return self._module.max_memory_allocated() if self._knows_peak else self._module.current_allocated_memory()

    def synchronize(self):
        self._module.synchronize()
