"""What a piece of work costs: its seconds, and the memory at its highest."""

import threading
import time
from dataclasses import dataclass

import psutil
import torch


# Seconds between two looks at the resident memory.
_INTERVAL = 0.02


@dataclass(frozen=True)
class Cost:
    """Time and memory of some work.

    Attributes:
        seconds: by the clock, added up over interruptions.
        peak_memory: highest resident memory of the whole process in bytes. It holds what approaches share, such as the
            TALL and the libraries, and what Python has not given back of earlier work.
        peak_accelerator_memory: highest memory of tensors on the accelerator in bytes; None without an accelerator.
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
    """Measures what is done inside `with CostMeter() as meter:`; afterwards `meter.cost` holds it, also after an error."""

    def __init__(self):
        self.cost = Cost()

    def __enter__(self):
        self._process = psutil.Process()
        self._peak = self._process.memory_info().rss
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._start = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, kind, error, traceback):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._start
        self._done.set()
        self._thread.join()
        self._look()
        accelerator = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        self.cost = Cost(seconds, self._peak, accelerator)

    def _watch(self):
        while not self._done.wait(_INTERVAL):
            self._look()

    def _look(self):
        self._peak = max(self._peak, self._process.memory_info().rss)
