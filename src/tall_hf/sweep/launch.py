"""The processes that were launched together for one queue: which of them this one is, and what it leaves to the others."""

import os
import uuid
from dataclasses import dataclass
from datetime import timedelta

import torch


# What `torchrun` and `accelerate launch` tell the processes that they start. The commands of a queue must not read it: each
# of them works by itself.
_VARIABLES = {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "ROLE_NAME",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
}
_PREFIXES = ("ACCELERATE_", "TORCHELASTIC_")


@dataclass(frozen=True)
class Launch:
    """The processes at work on a queue, of which this is one; without a launcher it is the only one.

    Attributes:
        rank, world_size: this process's number, from 0 on, and how many there are on all machines.
        local_world_size: how many share this machine's processor.
        id: the same text in all of them, another one in every launch; it tells a failure of this launch from an old one.
    """

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    id: str | None = None

    def runs(self, turn: int) -> bool:
        """Whether the stages of a turn are this process's."""
        return turn % self.world_size == self.rank


def join_launch() -> Launch:
    """Find the others that `torchrun` or `accelerate launch` has started, and take this process's share of the GPUs.

    Afterwards nothing of the launch is left in the environment, so that commands started from here work by themselves.
    """
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    launch = Launch()
    if world_size > 1:
        if "RANK" not in os.environ:
            raise ValueError(
                f"WORLD_SIZE is {world_size}, but no RANK says which of these processes this is. Start them by `torchrun` or "
                "`accelerate launch`, or unset WORLD_SIZE."
            )
        rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0))
        ids = [uuid.uuid4().hex]
        torch.distributed.init_process_group("gloo", timeout=timedelta(minutes=30))
        torch.distributed.broadcast_object_list(ids)  # that of rank 0, to all
        torch.distributed.destroy_process_group()
        launch = Launch(rank, world_size, int(os.environ.get("LOCAL_WORLD_SIZE", world_size)), ids[0])
        if torch.cuda.is_available():
            os.environ["CUDA_VISIBLE_DEVICES"] = _own_gpu(local_rank)
    for name in list(os.environ):
        if name in _VARIABLES or name.startswith(_PREFIXES):
            del os.environ[name]
    return launch


def _own_gpu(local_rank: int) -> str:
    """One of the GPUs that this process may see, for its commands alone; they are shared where there are fewer."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    return devices[local_rank % len(devices)]
