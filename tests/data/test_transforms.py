"""From file bytes to uint8 squares, and which crops are taken."""
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from zfcore.check import Expected
from zfcore.data import transforms
from zfcore.data.transforms import CorruptImage, decode, square


def noise(h, w, channels=3, seed=0):
    shape = (h, w, channels) if channels > 1 else (h, w)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def scene(y, x):
    """Colours without fine detail at the points (y, x), 0 to 1: JPEG and resampling leave them nearly as they are."""
    return np.stack([127 + 120*np.sin(3*x + 1), 127 + 120*np.cos(4*y), 255*(x + y)/2], axis=2)


def smooth(h, w):
    return scene(*np.mgrid[0:h, 0:w]/max(h, w)).astype(np.uint8)


def encoded(picture, format="PNG", **options):
    file = io.BytesIO()
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(file, format, **options)
    return file.getvalue()


def pixels(data, **options):
    picture = decode("some/name", data, **options)
    assert picture.mode == "RGB"
    return np.asarray(picture)


# ------------------------------------------------------------------------------------------------------- modes
def test_rgb_pixels_stay_as_they_are():
    assert np.array_equal(pixels(encoded(noise(5, 7))), noise(5, 7))


def test_greyscale_fills_three_equal_channels():
    grey = noise(5, 7, 1)
    assert np.array_equal(pixels(encoded(grey)), np.repeat(grey[..., None], 3, axis=2))


def test_one_bit_pixels_become_black_and_white():
    bits = noise(5, 7, 1) > 99
    assert np.array_equal(pixels(encoded(Image.fromarray(bits))), np.repeat(255*bits[..., None], 3, axis=2))


@pytest.mark.parametrize("dtype, format", [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF"), (">u2", "PGM")])
def test_sixteen_bits_are_scaled_to_eight_and_rounded(dtype, format):
    deep = np.array([[0, 127, 128, 129, 257*77, 257*77 + 128, 257*77 + 129, 65535]], np.dtype(dtype))
    expected = [0, 0, 0, 1, 77, 77, 78, 255]
    data = b"P5 8 1 65535\n" + deep.tobytes() if format == "PGM" else encoded(deep, format)
    assert pixels(data)[0].tolist() == [[v]*3 for v in expected]


def tiff(bits, data, samples=1, zero_is_black=1):
    """A TIFF of one row, as no option of Pillow's writes it: `samples` 1 are without a sign, 2 with one."""
    tags = {256: 4, 257: 1, 258: bits, 259: 1, 262: zero_is_black, 273: 8, 278: 1, 279: len(data), 339: samples}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("bits, dtype", [(8, "u1"), (16, "<u2")])
def test_a_scan_whose_zero_is_white_is_not_taken_for_its_negative(bits, dtype):
    stored = np.array([0, 1, (2**bits - 1)//3, 2**bits - 1], dtype).tobytes()
    usual, scan = (pixels(tiff(bits, stored, zero_is_black=zero_is_black))[0, :, 0] for zero_is_black in (1, 0))
    assert usual.tolist() == [0, int(bits == 8), 85, 255] and scan.tolist() == (255 - usual).tolist()


def test_the_white_of_twelve_bits_is_4095():
    assert pixels(tiff(12, bytes.fromhex("000800 fff010")))[0, :, 0].tolist() == [0, 128, 255, 1]


@pytest.mark.parametrize("bits, samples", [(32, 1), (32, 2), (16, 2)])
def test_whole_numbers_of_32_bits_or_with_a_sign_are_refused(bits, samples):
    with pytest.raises(CorruptImage, match="white is not known"):
        decode("x", tiff(bits, bytes(16), samples))
    with pytest.raises(ValueError, match="white is not known"):
        transforms.to_rgb(Image.new("I", (3, 4)))


def test_transparent_palette_entries_are_laid_on_white():
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 255])
    picture.putdata([0, 1, 2])
    assert pixels(encoded(picture, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255], [0, 0, 255]]]
    assert pixels(encoded(picture, transparency=bytes([255, 0, 51])))[0, 1:].tolist() == [[255]*3, [204, 204, 255]]
    assert pixels(encoded(picture)).tolist() == [[[10, 20, 30], [200, 100, 50], [0, 0, 255]]]


def test_half_transparent_pixels_are_mixed_with_white():
    rgba = np.array([[[0, 100, 200, 255], [0, 100, 200, 51], [9, 9, 9, 0]]], np.uint8)
    assert pixels(encoded(rgba)).tolist() == [[[0, 100, 200], [204, 224, 244], [255, 255, 255]]]
    grey = np.array([[[40, 255], [40, 0]]], np.uint8)
    assert pixels(encoded(Image.fromarray(grey, "LA"))).tolist() == [[[40]*3, [255]*3]]


def test_a_transparent_colour_of_a_picture_without_alpha_is_laid_on_white():
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    assert pixels(encoded(rgb, transparency=(4, 5, 6))).tolist() == [[[1, 2, 3], [255, 255, 255]]]
    assert pixels(encoded(np.array([[7, 8]], np.uint8), transparency=8)).tolist() == [[[7]*3, [255]*3]]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb_and_is_not_inverted(format):
    colours = np.zeros((16, 64, 4), np.uint8)
    for k, ink in enumerate([(0, 255, 255, 0), (255, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 255)]):
        colours[:, 16*k:16*k + 16] = ink
    found = pixels(encoded(Image.fromarray(colours, "CMYK"), format))[8, 8::16].astype(int)
    assert np.abs(found - [[255, 0, 0], [0, 255, 255], [255, 255, 255], [0, 0, 0]]).max() < 8


@pytest.mark.parametrize("format", ["GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG"])
def test_every_format_is_told_by_its_content(format):
    options = {"lossless": True} if format == "WEBP" else {"quality": 98} if format == "JPEG" else {}
    found = pixels(encoded(smooth(24, 40), format, **options)).astype(int)
    assert np.abs(found - smooth(24, 40)).max() < (60 if format == "GIF" else 12)


def test_floating_point_pixels_are_refused():
    with pytest.raises(CorruptImage, match="white is not known"):
        decode("x", encoded(np.ones((3, 4), np.float32), "TIFF"))


# ------------------------------------------------------------------------------------------------- orientation
STORED_TO_UPRIGHT = {                              # where the standard puts row 0 and column 0 of what is stored
    1: lambda s: s,                                # top, left
    2: lambda s: s[:, ::-1],                       # top, right
    3: lambda s: s[::-1, ::-1],                    # bottom, right
    4: lambda s: s[::-1],                          # bottom, left
    5: lambda s: s.swapaxes(0, 1),                 # left, top
    6: lambda s: s[::-1].swapaxes(0, 1),           # right, top
    7: lambda s: s[::-1, ::-1].swapaxes(0, 1),     # right, bottom
    8: lambda s: s[:, ::-1].swapaxes(0, 1),        # left, bottom
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_once(orientation, format):
    exif = Image.Exif()
    exif[transforms.ORIENTATION] = orientation
    data = encoded(noise(5, 7), format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    assert np.array_equal(pixels(data), STORED_TO_UPRIGHT[orientation](noise(5, 7)))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_orientation_survives_a_change_of_mode_and_reduced_decoding(mode):
    exif = Image.Exif()
    exif[transforms.ORIENTATION] = 6
    data = encoded(Image.fromarray(smooth(160, 320)).convert(mode), "JPEG", exif=exif)
    upright = STORED_TO_UPRIGHT[6](np.asarray(Image.fromarray(smooth(160, 320)).convert(mode).convert("RGB")))
    assert np.abs(pixels(data).astype(int) - upright).max() < 16
    reduced = pixels(data, shorter_side=20)
    assert reduced.shape == (80, 40, 3)
    assert np.abs(reduced.astype(int) - upright[2::4, 2::4]).max() < 24


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0", b"Exif\0\0 no TIFF at all", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_exif_beside_sound_pixels_is_passed_over(exif):
    assert pixels(encoded(smooth(16, 24), "JPEG", exif=exif)).shape == (16, 24, 3)


# ------------------------------------------------------------------------------------------------- reduced JPEG
def test_a_much_larger_jpeg_is_decoded_smaller_but_never_below_twice_the_wanted_side():
    data = encoded(smooth(330, 500), "JPEG", quality=95)
    for side, shape in ((20, (42, 63, 3)), (40, (83, 125, 3)), (41, (83, 125, 3)), (42, (165, 250, 3)),
                        (82, (165, 250, 3)), (83, (330, 500, 3)), (256, (330, 500, 3))):
        assert pixels(data, shorter_side=side).shape == shape
        assert side > 82 or min(shape[:2]) >= 2*side
    difference = square(decode("x", data, 40), 40, 40).astype(int) - square(decode("x", data), 40, 40)
    assert np.abs(difference).max() <= 3


def test_reduction_leaves_other_formats_alone():
    assert pixels(encoded(noise(64, 64)), shorter_side=4).shape == (64, 64, 3)


# ----------------------------------------------------------------------------------------------------- damage
def png_header(width, height):
    """A PNG of a few bytes that claims to have so many pixels."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("data, reason", [
    (b"", "empty"),
    (b"<html>404 not found</html>", "known format"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),       # never handed to an interpreter
    (b"\xff\xd8\xff\xe0", "."),
    (png_header(10_000, 10_000), "10000x10000"),
    (png_header(60_000, 60_000), "more than the 89 million pixels that a picture that is no JPEG may have; save it as one"),
    (png_header(0, 9), "."),
], ids=["zero bytes", "html", "postscript", "jpeg header", "bomb", "big bomb", "no width"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_damaged_and_says_why(data, reason):
    with pytest.raises(CorruptImage, match=f"^some/name: .*{reason}") as caught:
        decode("some/name", data)
    assert caught.value.name == "some/name" and caught.value.lasting


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "PPM"])
def test_a_file_cut_short_is_damaged_wherever_it_is_cut(format):
    data = encoded(noise(24, 31), format)
    for length in range(0, len(data) - 16, 37):
        with pytest.raises(CorruptImage):
            decode("x", data[:length])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.filterwarnings("ignore")
def test_scrambled_bytes_give_a_picture_or_damaged_and_nothing_else(format):
    data = np.frombuffer(encoded(smooth(20, 30), format), np.uint8)
    rng = np.random.default_rng(7)
    for _ in range(60):
        scrambled = data.copy()
        scrambled[rng.integers(0, min(len(data), 200), 4)] = rng.integers(0, 256, 4)
        try:
            assert decode("x", scrambled.tobytes()).mode == "RGB"
        except CorruptImage:
            pass


def test_lack_of_memory_is_not_blamed_on_the_picture(monkeypatch):
    def no_memory(picture):
        raise MemoryError
    monkeypatch.setattr(transforms, "to_rgb", no_memory)
    with pytest.raises(MemoryError):
        decode("x", encoded(noise(5, 7)))


# ----------------------------------------------------------------------------------------------------- squares
@pytest.mark.parametrize("h, w", [(20, 33), (33, 20), (20, 20), (20, 25)])
def test_a_picture_of_the_right_side_is_cropped_and_not_resampled(h, w):
    picture, top, left = noise(h, w), (h - 20)//2, (w - 20)//2
    found = square(Image.fromarray(picture), 20, 17)
    assert found.dtype == np.uint8
    assert np.array_equal(found, picture[top:top + 20, left:left + 20])


@pytest.mark.parametrize("h, w", [(60, 100), (100, 60), (61, 94)])
def test_the_shorter_side_is_scaled_and_the_centre_kept(h, w):
    size, side = 20, min(h, w)
    centres = (np.arange(size) + 0.5)*side/size - 0.5               # of the pixels asked for, in those of the source
    expected = scene(*np.meshgrid((centres + (h - side)/2)/max(h, w), (centres + (w - side)/2)/max(h, w), indexing="ij"))
    found = square(Image.fromarray(smooth(h, w)), size, size)
    assert found.shape == (size, size, 3)
    assert np.abs(found - expected).max() < 3                       # a pixel off would be 8 to 15


def test_reduction_is_antialiased():
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::2] = 255
    inside = square(Image.fromarray(stripes), 20, 20)[:, 2:-2].astype(int)
    assert np.abs(inside - 127).max() < 12           # picking pixels would give 0 and 255


def test_a_picture_smaller_than_the_crop_is_refused_by_name_unless_upscale():
    picture = Image.fromarray(noise(15, 40))
    with pytest.raises(Expected, match=r"train/cat/1.png: expected .* at least 16 pixels.* got 40x15.*upscale"):
        square(picture, 20, 16, name="train/cat/1.png")
    assert square(picture, 20, 16, upscale=True).shape == (20, 20, 3)
    assert square(picture, 20, 15).shape == (20, 20, 3)             # above the crop the paper's 256 is reached silently


# ------------------------------------------------------------------------------------------------------- crops
def test_ten_crops_are_four_corners_and_centre_then_the_same_mirrored():
    tops, lefts, flips = transforms.ten_crops(27, 20)
    places = [(0, 0), (0, 7), (7, 0), (7, 7), (3, 3)]
    assert list(zip(tops.tolist(), lefts.tolist())) == places*2
    assert flips.tolist() == [False]*5 + [True]*5


def test_ten_crops_of_imagenet_lie_where_the_paper_has_them():
    tops, lefts, _ = transforms.ten_crops(256, 224)
    assert set(zip(tops.tolist(), lefts.tolist())) == {(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)}


def test_centre_crops_repeat_the_fifth_of_the_ten():
    for one, ten in zip(transforms.centre_crops(3, 27, 20), transforms.ten_crops(27, 20)):
        assert one.tolist() == [ten[4]]*3


@pytest.mark.parametrize("draw", [transforms.random_crops, transforms.one_of_ten])
def test_a_drawn_crop_depends_on_seed_epoch_and_index_alone(draw):
    everything = np.array(draw(np.arange(500), 3, 2, 41, 32))
    some = np.array([7, 499, 0, 123, 7])
    assert np.array_equal(draw(some, 3, 2, 41, 32), everything[:, some])
    for seed, epoch in ((4, 2), (3, 3), (2, 3)):
        assert np.mean(np.all(draw(np.arange(500), seed, epoch, 41, 32) == everything, axis=0)) < 0.2
    assert all(len(part) == 0 for part in draw(np.arange(0), 3, 2, 41, 32))


def test_drawn_crops_never_change_between_versions():
    tops, lefts, flips = transforms.random_crops(np.arange(4), 1, 2, 256, 224)
    assert (tops.tolist(), lefts.tolist(), flips.tolist()) == ([6, 17, 29, 32], [9, 22, 26, 18], [True, False, True, True])
    assert transforms.one_of_ten(np.arange(6), 1, 2, 256, 224)[0].tolist() == [0, 16, 0, 32, 0, 0]


def test_random_crops_reach_every_place_equally_often_and_mirror_half():
    n, places = 90_000, 10
    tops, lefts, flips = transforms.random_crops(np.arange(n), 0, 0, 41, 32)
    assert tops.dtype == lefts.dtype == np.int64 and flips.dtype == bool
    cells = np.bincount(((tops*places + lefts)*2 + flips), minlength=2*places**2)
    assert len(cells) == 2*places**2
    chi2 = ((cells - n/200)**2/(n/200)).sum()
    assert chi2 < 199 + 5*np.sqrt(2*199)              # top, left and mirroring are uniform and independent


def test_one_of_ten_draws_each_of_the_ten_equally_often():
    n = 50_000
    drawn = np.array(transforms.one_of_ten(np.arange(n), 0, 0, 27, 20)).T
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 10
    assert np.abs(counts - n/10).max() < 5*np.sqrt(n/10)
    assert {tuple(c) for c in drawn.tolist()} == {tuple(c) for c in np.array(transforms.ten_crops(27, 20)).T.tolist()}


def test_a_crop_as_large_as_the_picture_has_one_place():
    tops, lefts, _ = transforms.random_crops(np.arange(9), 0, 0, 32, 32)
    assert not tops.any() and not lefts.any()


@pytest.mark.parametrize("crop, sentence", [(28, "1 to 27 pixels"), (0, "a whole number of 1"), ("5", "a whole number"),
                                            (5., "a whole number")])
def test_a_crop_that_does_not_fit_is_refused(crop, sentence):
    for make in (lambda: transforms.ten_crops(27, crop), lambda: transforms.centre_crops(2, 27, crop),
                 lambda: transforms.random_crops(np.arange(3), 0, 0, 27, crop)):
        with pytest.raises(Expected, match=f"crop: expected {sentence}"):
            make()
