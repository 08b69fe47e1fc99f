"""Random shift, rotation, scale and flip of a whole batch of images at once, on the device where it lies.

Shapes: B images, C channels, H rows, W columns.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images_BCHW: Tensor, *, shift: float, rotation: float, scale: float, horizontal_flip: bool) -> Tensor:
    """Move each image a little, differently.

    Strengths bound uniform draws from PyTorch's global generator, so ``torch.manual_seed`` decides them, and the same
    seed gives the same images on the CPU and on a GPU. What a move uncovers is filled with the nearest edge pixel.

    Args:
        images_BCHW: Floats in [0, 1].
        shift: Farthest move along each axis, in pixels.
        rotation: Largest turn either way, in degrees.
        scale: Largest enlargement or reduction, as a fraction of the size, in [0, 1).
        horizontal_flip: Mirror left to right with probability 1/2.

    Returns:
        Images of the same shape, in [0, 1]; the very same tensor where every strength is zero.
    """
    num, device = len(images_BCHW), images_BCHW.device
    if shift or rotation or scale or horizontal_flip:
        # Five draws an image whatever is asked: switching one kind off leaves the others' draws as they were.
        draws_B5 = torch.rand(num, 5).to(device, images_BCHW.dtype, non_blocking=True)
        uniform_B4 = 2 * draws_B5[:, :4] - 1
        if horizontal_flip:
            flipped_B = draws_B5[:, 4] < 0.5
            images_BCHW = torch.where(flipped_B[:, None, None, None], images_BCHW.flip(-1), images_BCHW)
        if shift or rotation or scale:
            images_BCHW = warp(
                images_BCHW,
                shift_B2=shift * uniform_B4[:, :2],
                rotation_B=math.radians(rotation) * uniform_B4[:, 2],
                scale_B=1 + scale * uniform_B4[:, 3],
            )
    return images_BCHW


def warp(images_BCHW: Tensor, *, shift_B2: Tensor, rotation_B: Tensor, scale_B: Tensor) -> Tensor:
    """Scale and rotate about the centre, then shift, with bilinear interpolation.

    Args:
        images_BCHW: Floats.
        shift_B2: Move right and down, in pixels.
        rotation_B: Turn, clockwise as displayed, in radians.
        scale_B: Factor of the size; above 1 enlarges.

    Returns:
        Images of the same shape; values stay within those of the input.
    """
    height, width = images_BCHW.shape[-2:]
    # Sampling asks where each output pixel comes from: the inverse map, in coordinates that run from -1 to 1 along
    # each side, hence the ratios of the sides in the mixed terms.
    cos_B, sin_B = rotation_B.cos() / scale_B, rotation_B.sin() / scale_B
    right_B, down_B = 2 * shift_B2[:, 0] / width, 2 * shift_B2[:, 1] / height
    x_B3 = torch.stack([cos_B, sin_B * (height / width)], dim=1)
    y_B3 = torch.stack([-sin_B * (width / height), cos_B], dim=1)
    linear_B22 = torch.stack([x_B3, y_B3], dim=1)
    offset_B21 = -linear_B22 @ torch.stack([right_B, down_B], dim=1)[:, :, None]
    grid_BHW2 = F.affine_grid(torch.cat([linear_B22, offset_B21], dim=2), list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid_BHW2, mode="bilinear", padding_mode="border", align_corners=False)
