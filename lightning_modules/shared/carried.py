"""State that is carried from batch to batch, along streams that several workers share.

Worker r of W has the streams r, r + W, r + 2 W and so on.

Shapes: L layers, B streams of a worker, S streams of all workers, H hidden units.
"""

import torch
import torch.nn.functional as F

from lightning_modules.shared.recurrent import State


def all_streams(state: State, world_size: int) -> State:
    """The state of every worker's streams, in the order of the streams, on the CPU; on every worker.

    Args:
        state: This worker's, tensors of shape (L, B, H).
        world_size: W.

    Returns:
        Tensors of shape (L, S, H).
    """
    if world_size == 1:
        return tuple(part.cpu() for part in state)
    count = torch.tensor([state[0].shape[1]], device=state[0].device)
    counts = [torch.zeros_like(count) for _ in range(world_size)]
    torch.distributed.all_gather(counts, count)
    most, total = int(max(counts)), int(sum(counts))
    gathered = []
    for part_LBH in state:
        filled_LBH = F.pad(part_LBH, (0, 0, 0, most - part_LBH.shape[1])).contiguous()
        parts = [torch.empty_like(filled_LBH) for _ in range(world_size)]
        torch.distributed.all_gather(parts, filled_LBH)
        gathered.append(torch.stack(parts, dim=2).flatten(1, 2)[:, :total].cpu())
    return tuple(gathered)


def own_streams(state: State, rank: int, world_size: int, device: torch.device) -> State:
    """The part of all streams' state that is a worker's own: what :func:`all_streams` has put together."""
    return tuple(part[:, rank::world_size].to(device) for part in state)
