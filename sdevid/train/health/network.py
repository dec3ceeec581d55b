"""Whether the ranks hear each other, and how fast."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from sdevid.errors import UserError
from sdevid.train.world import World

SECONDS = 120  # starting NCCL on hundreds of nodes takes a part of that
MEETING_SECONDS = 600  # that ranks may come later than the first
_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}  # float32
_ROUNDS = 3


def absent(world: World) -> list[int]:
    """List the ranks that do not arrive in time, as rank 0 sees it.

    Where any do not, the others only see that rank 0 no longer waits, and `control` cannot be used
    any more.
    """
    if world.size == 1:
        return []
    try:
        dist.monitored_barrier(world.control, timedelta(seconds=MEETING_SECONDS), True)
    except RuntimeError as error:
        named = re.search(r"Ranks ([\d, ]+) failed to pass", str(error))
        return [int(rank) for rank in named[1].split(",")] if world.main and named else [0]
    return []


def ring(world: World) -> list[bool]:
    """Check for each rank whether it heard from the one before it (the last, for rank 0)."""
    if world.size == 1:
        return [True]
    before, after = (world.rank - 1) % world.size, (world.rank + 1) % world.size
    sent = torch.full((1,), float(world.rank), device=world.device)
    heard = torch.full((1,), -1.0, device=world.device)
    exchange = [dist.P2POp(dist.isend, sent, after), dist.P2POp(dist.irecv, heard, before)]
    finished = _finish(lambda: dist.batch_isend_irecv(exchange), world.device)
    return world.gather(finished and float(heard) == before)


def bandwidth(world: World) -> float:
    """Measure bytes a second through each rank's link in an all-reduce; NaN for one rank alone.

    2 (n - 1) / n of the tensor pass each link (Patarasuk and Yuan 2009). The best of a few rounds.
    Raises UserError where it does not end in time.
    """
    if world.size == 1:
        return float("nan")
    tensor = torch.ones(_ELEMENTS[world.device.type], device=world.device)
    times = []
    for _ in range(_ROUNDS):
        world.barrier()
        began = time.perf_counter()
        finished = _finish(lambda: [dist.all_reduce(tensor, async_op=True)], world.device)
        times.append(time.perf_counter() - began)
        if not all(world.gather(finished)):
            raise UserError(
                f"an all-reduce over all ranks did not end within {SECONDS} s, though each rank "
                "heard the one before it; look at the network between the nodes, and at "
                "NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME in slurm/env.sh"
            )
    bytes_moved = 2 * (world.size - 1) / world.size * tensor.numel() * tensor.element_size()
    return bytes_moved / min(times)


def _finish(start: Callable[[], list[dist.Work]], device: torch.device) -> bool:
    """Check whether all work that `start` starts is done in time."""
    if device.type == "cpu":
        try:
            return all(work.wait(timedelta(seconds=SECONDS)) for work in start())
        except RuntimeError:  # gloo's time-out, or the other side has given up
            return False
    works, end = start(), time.monotonic() + SECONDS
    while not all(work.is_completed() for work in works):  # wait() would only make a stream wait
        if time.monotonic() > end:
            return False
        time.sleep(1e-4)
    return True
