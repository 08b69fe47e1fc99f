"""Pictures from files to arrays of one shape, and to a sheet."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from workloads.data._pictures import Form, contact_sheet, decode, decoded, look, thumbnails

PIXELS = (load_digits().images * 15).astype(np.uint8)


def test_pad_centres_on_black(tmp_path):
    pixels = PIXELS[0][:3, :5]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.zeros((6, 6), dtype=np.uint8)
    expected[1:4, 0:5] = pixels  # half of 6 - 3 and of 6 - 5, rounded down
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), Form(6, 1, "pad")), expected[None])


def test_pad_shrinks_what_is_larger_and_keeps_its_shape(tmp_path):
    pixels = np.kron(PIXELS[0][:4], np.ones((2, 2), dtype=np.uint8))  # 16 wide, 8 high
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.zeros((8, 8), dtype=np.uint8)
    expected[2:6] = np.asarray(Image.fromarray(pixels).resize((8, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), Form(8, 1, "pad")), expected[None])


def test_resize_is_pillows_bilinear(tmp_path):
    Image.fromarray(PIXELS[0][:, :5]).save(tmp_path / "a.png")
    expected = np.asarray(Image.fromarray(PIXELS[0][:, :5]).resize((7, 7), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), Form(7, 1, "resize")), expected[None])


def test_grey_of_colour_is_luma(tmp_path):
    Image.fromarray(np.full((4, 4, 3), (255, 0, 0), dtype=np.uint8)).save(tmp_path / "a.png")
    assert (decode(str(tmp_path / "a.png"), Form(4, 1, "resize")) == 76).all()  # 0.299 of 255


def test_orientation_is_respected(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown turned clockwise by a quarter
    Image.fromarray(PIXELS[3]).save(tmp_path / "a.png", exif=exif)
    expected = np.rot90(PIXELS[3], -1)
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), Form(8, 1, "resize"))[0], expected)


def test_transparency_becomes_white(tmp_path):
    pixels = np.dstack([PIXELS[0]] * 3 + [np.where(PIXELS[0] > 0, 255, 0).astype(np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.where(PIXELS[0] > 0, PIXELS[0], 255)
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), Form(8, 1, "resize"))[0], expected)


def test_sixteen_bits_are_reduced_to_eight(tmp_path):
    Image.fromarray(PIXELS[0].astype(np.uint16) * 257).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), Form(8, 1, "resize"))[0], PIXELS[0])


def test_pixels_in_memory_are_taken_as_they_are_or_fitted():
    np.testing.assert_array_equal(decode(PIXELS[0], Form(8, 1, "resize"))[0], PIXELS[0])
    expected = np.pad(PIXELS[0], 1)
    np.testing.assert_array_equal(decode(PIXELS[0], Form(10, 3, "pad")), np.stack([expected] * 3))


@pytest.mark.parametrize(("turned", "expected"), [(1, (7, 5)), (6, (5, 7))])
def test_the_header_tells_width_height_and_colour(tmp_path, turned, expected):
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(PIXELS[0][:5, :7]).save(tmp_path / "a.jpg", exif=exif)
    assert look(str(tmp_path / "a.jpg")) == (*expected, False)
    Image.fromarray(np.dstack([PIXELS[0]] * 3)).save(tmp_path / "b.png")
    assert look(str(tmp_path / "b.png")) == (8, 8, True)


def test_a_large_photograph_shrinks_to_what_pillow_makes_of_it(tmp_path):
    """It is decoded at a fraction of its size, which must not be seen."""
    photo = load_sample_images().images[0]
    Image.fromarray(photo).save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(Image.fromarray(photo).resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    found = decode(str(tmp_path / "a.jpg"), Form(32, 3, "resize"))
    assert np.abs(found.astype(int) - expected).mean() < 4


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(PIXELS[0].astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="floating-point pixels have no known range"):
        decode(str(tmp_path / "a.tiff"), Form(8, 1, "resize"))


def test_parts_hold_what_is_good_in_order():
    rows, told = np.arange(5, 205), []
    pictures = [b"hello" if i == 77 else PIXELS[i] for i in range(210)]
    parts = list(
        decoded(lambda some: [pictures[i] for i in some], rows, Form(8, 1, "pad"), 90, lambda *bad: told.append(bad))
    )
    good = np.delete(rows, 72)
    assert [len(part["row"]) for part in parts] == [89, 90, 20]
    assert told == [(77, "not a picture, or one of an unknown format")]
    np.testing.assert_array_equal(np.concatenate([part["row"] for part in parts]), good)
    np.testing.assert_array_equal(np.concatenate([part["inputs"] for part in parts])[:, 0], PIXELS[good])
    small = np.concatenate([part["thumbnail"] for part in parts])
    np.testing.assert_array_equal(small, PIXELS[good].reshape(-1, 64))  # 8x8 pictures are their own thumbnails


def test_thumbnails_are_means_of_squares_and_of_colours():
    pixels = np.zeros((1, 3, 16, 16), dtype=np.uint8)
    pixels[0, 0, :2, :2] = 240
    pixels[0, 1, 2, 2] = 120
    expected = np.zeros((8, 8), dtype=np.uint8)
    expected[0, 0], expected[1, 1] = 80, 10  # 240 / 3; 120 / 3 / 4
    np.testing.assert_array_equal(thumbnails(pixels)[0].reshape(8, 8), expected)


def test_a_long_name_leaves_room_for_its_number(tmp_path):
    """The number stands at the right end of the title, whatever comes before it."""
    for name in ("an exceedingly long name of a class", "an exceedingly long name of another"):
        contact_sheet(PIXELS[:1, None], [(name, "0.93")], tmp_path / f"{name[-5:]}.png")
    first, second = (np.asarray(Image.open(tmp_path / f"{end}.png")) for end in ("class", "other"))
    np.testing.assert_array_equal(first, second)  # cut short alike
    assert first.shape == (14 + 112 + 22 + 14, 14 + 112 + 14, 3)
    assert (first[127:148, 100:126] < 100).any()
