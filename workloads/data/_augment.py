"""Random moves, distortions and flips of a whole batch of images at once, on the device where it lies.

Shapes: B images, C channels, H rows, W columns.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

KNOTS = 5
"""Knots of the elastic displacement along each side."""


def augment(
    images_BCHW: Tensor,
    *,
    shift: float,
    rotation: float,
    scale: float,
    shear: float,
    elastic: float,
    horizontal_flip: bool,
) -> Tensor:
    """Move each image a little, differently.

    Strengths bound uniform draws from PyTorch's global generator, so ``torch.manual_seed`` decides them, and the same
    seed gives the same images on the CPU and on a GPU. What a move uncovers is filled with the nearest edge pixel.

    Args:
        images_BCHW: Floats in [0, 1].
        shift: Farthest move along each axis, in pixels.
        rotation: Largest turn either way, in degrees.
        scale: Largest enlargement or reduction, as a fraction of the size, in [0, 1).
        shear: Largest slant of the upright either way, in degrees below 90.
        elastic: Farthest move of the knots of a smooth random displacement along each axis, in pixels.
        horizontal_flip: Mirror left to right with probability 1/2.

    Returns:
        Images of the same shape, in [0, 1]; the very same tensor where every strength is zero.
    """
    num, device, dtype = len(images_BCHW), images_BCHW.device, images_BCHW.dtype
    if shift or rotation or scale or horizontal_flip or shear or elastic:
        # Every kind draws whether it is asked or not: switching one off leaves the others' draws as they were.
        uniform_B6 = (2 * torch.rand(num, 6) - 1).to(device, dtype, non_blocking=True)
        knots_B2hw = (2 * torch.rand(num, 2, KNOTS, KNOTS) - 1).to(device, dtype, non_blocking=True)
        if horizontal_flip:
            flipped_B = uniform_B6[:, 5] < 0
            images_BCHW = torch.where(flipped_B[:, None, None, None], images_BCHW.flip(-1), images_BCHW)
        if shift or rotation or scale or shear or elastic:
            images_BCHW = warp(
                images_BCHW,
                shift_B2=shift * uniform_B6[:, :2],
                rotation_B=math.radians(rotation) * uniform_B6[:, 2],
                scale_B=1 + scale * uniform_B6[:, 3],
                slant_B=math.tan(math.radians(shear)) * uniform_B6[:, 4],
                knots_B2hw=elastic * knots_B2hw if elastic else None,
            )
    return images_BCHW


@functools.lru_cache(maxsize=8)
def _spread(height: int, width: int) -> Tensor:
    """Bicubic interpolation from the knots to the pixels as a matrix, which is ten times as fast on a CPU.

    Returns:
        Weights, shape (KNOTS * KNOTS, height * width).
    """
    basis_K1hw = torch.eye(KNOTS * KNOTS).view(-1, 1, KNOTS, KNOTS)
    return F.interpolate(basis_K1hw, (height, width), mode="bicubic", align_corners=True).flatten(1)


def warp(
    images_BCHW: Tensor,
    *,
    shift_B2: Tensor,
    rotation_B: Tensor,
    scale_B: Tensor,
    slant_B: Tensor,
    knots_B2hw: Tensor | None = None,
) -> Tensor:
    """Slant, scale and rotate about the centre, then shift, with bilinear interpolation.

    Args:
        images_BCHW: Floats.
        shift_B2: Move right and down, in pixels.
        rotation_B: Turn, clockwise as displayed, in radians.
        scale_B: Factor of the size; above 1 enlarges.
        slant_B: Move right for each pixel below the centre, in pixels.
        knots_B2hw: Move right and down of a grid of knots that spans the image, in pixels; smooth in between. After
            Simard et al., "Best Practices for Convolutional Neural Networks", 2003.

    Returns:
        Images of the same shape; values stay within those of the input.
    """
    height, width = images_BCHW.shape[-2:]
    # Sampling asks where each output pixel comes from: the inverse map, in coordinates that run from -1 to 1 along
    # each side, hence the ratios of the sides in the mixed terms.
    cos_B, sin_B = rotation_B.cos() / scale_B, rotation_B.sin() / scale_B
    right_B, down_B = 2 * shift_B2[:, 0] / width, 2 * shift_B2[:, 1] / height
    x_B3 = torch.stack([cos_B + slant_B * sin_B, (sin_B - slant_B * cos_B) * (height / width)], dim=1)
    y_B3 = torch.stack([-sin_B * (width / height), cos_B], dim=1)
    linear_B22 = torch.stack([x_B3, y_B3], dim=1)
    offset_B21 = -linear_B22 @ torch.stack([right_B, down_B], dim=1)[:, :, None]
    grid_BHW2 = F.affine_grid(torch.cat([linear_B22, offset_B21], dim=2), list(images_BCHW.shape), align_corners=False)
    if knots_B2hw is not None:
        spread_KP = _spread(height, width).to(grid_BHW2)
        moved_B2P = knots_B2hw.flatten(2) @ spread_KP
        moved_BHW2 = moved_B2P.transpose(1, 2).reshape(-1, height, width, 2)
        grid_BHW2 = grid_BHW2 - moved_BHW2 * grid_BHW2.new_tensor([2 / width, 2 / height])
    return F.grid_sample(images_BCHW, grid_BHW2, mode="bilinear", padding_mode="border", align_corners=False)
