"""How much of the loss's gradient reaches each earlier state of a recurrent network: where it vanishes or explodes.

By the chain rule the gradient with respect to a state is the product of the derivatives of all later steps. Where these
are below 1 it vanishes with the distance, above 1 it explodes: S. Hochreiter 1991, "Untersuchungen zu dynamischen
neuronalen Netzen"; Y. Bengio, P. Simard and P. Frasconi 1994, "Learning Long-Term Dependencies with Gradient Descent is
Difficult"; R. Pascanu, T. Mikolov and Y. Bengio 2013, arXiv:1211.5063.

Shapes: B batch, T steps, H hidden units of all layers and directions, D distances.
"""

import copy

import torch
from torch import Tensor, nn

from lightning_modules.shared.recurrent import Recurrent, Trace

STATES = ("hidden", "memory")
"""Names of the parts of a recurrent state; only an LSTM has the second."""


def recurrent_of(module: nn.Module) -> Recurrent | None:
    """The first recurrent layers in a module; None if it has none."""
    return next((part for part in module.modules() if isinstance(part, Recurrent)), None)


def norms(module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Norms of the gradient of each example's loss with respect to each state, by distance from the end.

    The module's own ``training_step`` gives the loss, without dropout and in double precision: single precision ends at
    1e-45, where a gradient has vanished long since. Each state is that of all layers, and of both directions if there
    are two: a distance is counted back from where a direction has read everything.

    Args:
        module: A module with a :class:`Recurrent`; it is left as it was.
        batch: What its ``training_step`` takes; the loss is a mean over its examples.

    Returns:
        ``hidden``, and of an LSTM ``memory``: L2 norms, float64, shape (B, D), where D is the steps of the longest
        example; not a number beyond the beginning of an example.

    Raises:
        ValueError: The module has no recurrent layer, or its step does not use it exactly once.
    """
    # Not in training mode, and so not by cuDNN, which only there keeps what the backward pass needs.
    with torch.backends.cudnn.flags(enabled=False):
        module = copy.deepcopy(module).double().eval()
        recurrent = recurrent_of(module)
        if recurrent is None:
            raise ValueError(f"{type(module).__name__} has no recurrent layer")
        batch = {name: c.double() if c.is_floating_point() else c for name, c in batch.items()}
        with torch.enable_grad(), recurrent.traced() as trace:
            loss = module.training_step(batch, 0)
        if len(trace.states) != len(recurrent.layers) * recurrent.num_directions:
            raise ValueError(f"{type(module).__name__} runs its recurrent layer {len(trace.states)} times in a step")
        names = STATES[: len(trace.states[0][0])]
        tensors = [state[i] for i in range(len(names)) for steps in trace.states for state in steps]
        found = torch.autograd.grad(loss * len(tensors[0]), tensors, materialize_grads=True)
    part = len(found) // len(names)
    return {name: _by_distance(found[i * part : (i + 1) * part], trace) for i, name in enumerate(names)}


def _by_distance(gradients: tuple[Tensor, ...], trace: Trace) -> Tensor:
    num_steps = len(trace.states[0])
    parts = [torch.stack(gradients[i : i + num_steps], dim=1) for i in range(0, len(gradients), num_steps)]
    norm_BT = _norm(torch.cat(parts, dim=2))
    if trace.length_B is None:
        return norm_BT.flip(1)
    place_BD = trace.length_B[:, None] - 1 - torch.arange(num_steps, device=norm_BT.device)
    return norm_BT.gather(1, place_BD.clamp(min=0)).masked_fill(place_BD < 0, torch.nan)


def _norm(values_BTH: Tensor) -> Tensor:
    """L2 norm of the last dimension, also of values whose squares are too small or too large for a float."""
    scale_BT1 = values_BTH.abs().amax(dim=2, keepdim=True)
    scaled_BTH = values_BTH / torch.where(scale_BT1 > 0, scale_BT1, 1)
    return (scale_BT1 * scaled_BTH.norm(dim=2, keepdim=True)).squeeze(2)
