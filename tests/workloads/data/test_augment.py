import math

import pytest
import torch

from workloads.data._augment import augment, warp

NONE = {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "shear": 0.0, "elastic": 0.0, "horizontal_flip": False}
ALL = {"shift": 2.0, "rotation": 15.0, "scale": 0.2, "horizontal_flip": True, "shear": 10.0, "elastic": 2.0}


def pictures(num=6, channels=2, height=9, width=7):
    return torch.rand(num, channels, height, width, generator=torch.Generator().manual_seed(0))


def moved(images, right=0.0, down=0.0, rotation=0.0, scale=1.0, slant=0.0, knots=None):
    num = len(images)
    return warp(
        images,
        shift_B2=torch.tensor([[right, down]]).repeat(num, 1),
        rotation_B=torch.full((num,), rotation),
        scale_B=torch.full((num,), scale),
        slant_B=torch.full((num,), slant),
        knots_B2hw=knots,
    )


def test_zero_strengths_are_the_identity():
    images = pictures()
    assert augment(images, **NONE) is images


def test_the_neutral_warp_is_the_identity():
    torch.testing.assert_close(moved(pictures()), pictures())


def test_a_shift_by_whole_pixels_moves_content_and_repeats_the_edge():
    images = pictures()
    shifted = moved(images, right=2.0, down=1.0)
    torch.testing.assert_close(shifted[:, :, 1:, 2:], images[:, :, :-1, :-2])
    torch.testing.assert_close(shifted[:, :, 1:, 0], images[:, :, :-1, 0])


def test_a_quarter_turn_is_that_of_rot90():
    images = pictures(height=8, width=8)
    torch.testing.assert_close(moved(images, rotation=math.pi / 2), images.rot90(-1, (-2, -1)), atol=1e-5, rtol=0)


def test_a_turn_of_an_oblong_picture_keeps_distances():
    images = torch.zeros(1, 1, 21, 41)
    images[0, 0, 10, 26] = 1.0  # six pixels right of the centre
    turned = moved(images, rotation=math.pi / 2)
    assert turned[0, 0, 16, 20].item() == pytest.approx(1.0, abs=1e-4)  # six pixels below it


def test_enlargement_moves_away_from_the_centre():
    images = torch.zeros(1, 1, 21, 21)
    images[0, 0, 10, 13:16] = 1.0  # its middle is four pixels right of the centre
    enlarged = moved(images, scale=2.0)
    assert enlarged[0, 0, 10, 18].item() == pytest.approx(1.0, abs=1e-4)
    assert enlarged.sum() > 2 * images.sum()


def test_a_slant_moves_rows_by_their_distance_from_the_centre():
    images = torch.zeros(1, 1, 21, 15)
    images[0, 0, [4, 10, 14], 7] = 1.0
    slanted = moved(images, slant=0.5)
    places = [slanted[0, 0, row].argmax().item() for row in (4, 10, 14)]
    assert places == [4, 7, 9]
    torch.testing.assert_close(slanted.sum(), images.sum())


def test_a_slant_comes_before_the_turn():
    images = pictures(height=8, width=8)
    torch.testing.assert_close(
        moved(images, slant=0.5, rotation=math.pi / 2), moved(images, slant=0.5).rot90(-1, (-2, -1)), atol=1e-5, rtol=0
    )


def test_equal_knots_are_a_shift():
    images = pictures()
    knots = torch.tensor([2.0, 1.0])[None, :, None, None].repeat(len(images), 1, 5, 5)
    torch.testing.assert_close(moved(images, knots=knots), moved(images, right=2.0, down=1.0))


def test_a_knot_moves_what_is_near_it_alone():
    images = pictures(height=17, width=17)
    knots = torch.zeros(len(images), 2, 5, 5)
    knots[:, 0, 0, 0] = 2.0
    elastic = moved(images, knots=knots)
    assert not torch.equal(elastic[..., :3, :3], images[..., :3, :3])
    torch.testing.assert_close(elastic[..., 9:, 9:], images[..., 9:, 9:])


def test_a_random_shift_stays_within_its_bound():
    images = torch.zeros(400, 1, 15, 15)
    images[:, :, 7, 7] = 1.0
    torch.manual_seed(0)
    shifted = augment(images, **NONE | {"shift": 2.0})
    torch.testing.assert_close(shifted.sum(dim=(1, 2, 3)), torch.ones(400))
    place = torch.arange(15.0) - 7
    centre = torch.stack([(shifted.sum(dim=(1, 2)) * place).sum(-1), (shifted.sum(dim=(1, 3)) * place).sum(-1)])
    assert 1.9 < centre.abs().max() <= 2.0001
    assert centre.mean().abs() < 0.15


def test_flip_mirrors_about_half_of_the_images():
    images = pictures(num=200)
    torch.manual_seed(0)
    flipped = augment(images, **NONE | {"horizontal_flip": True})
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    assert 70 < mirrored.sum() < 130


def test_values_and_shape_are_kept():
    images = pictures(num=50, channels=3)
    augmented = augment(images, **ALL)
    assert augmented.shape == images.shape
    assert augmented.min() >= 0 and augmented.max() <= 1
    assert not torch.equal(augmented, images)


def test_the_same_seed_gives_the_same_images():
    images = pictures()
    torch.manual_seed(3)
    first = augment(images, **ALL)
    torch.manual_seed(3)
    assert torch.equal(augment(images, **ALL), first)
    assert not torch.equal(augment(images, **ALL), first)
