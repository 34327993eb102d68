"""What a picture's file declares about its pixels is obeyed, or refused with one sentence."""

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from medsaga_lib.data.bitmaps import TURNS, is_stack
from medsaga_lib.data.images import read_image, read_mask
from medsaga_lib.data.label_files import targets, write_labels
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(8)
GREY = RANDOM.integers(0, 256, (20, 30), dtype=np.uint8)
MASK = (GREY > 200).astype(np.uint8)
EXIF = 274


def upright(values, orientation):
    """Pillow's picture for the same tag."""
    exif = Image.Exif()
    exif[EXIF] = orientation
    file = BytesIO()
    Image.fromarray(values).save(file, format="PNG", exif=exif)
    return np.asarray(ImageOps.exif_transpose(Image.open(file)))


@pytest.mark.parametrize("values", [GREY > 127, GREY, GREY.astype(np.uint16) * 16])
def test_white_is_zero(values, tmp_path):
    """Pillow inverts 8 bits and 1 bit; our reference is the complement."""
    bits = 1 if values.dtype == bool else 8 * values.itemsize
    stored = ~values if values.dtype == bool else 2**bits - 1 - values
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    window = None if bits < 16 else (0, 65535)
    pixels = read_image(tmp_path / "a.tif", "X-ray", window).pixels
    np.testing.assert_allclose(pixels, values / (2**bits - 1), atol=1e-6)
    if bits < 16:
        assert np.array_equal(
            np.asarray(Image.open(tmp_path / "a.tif").convert("L")) > 127, pixels > 0.5
        )
    assert np.array_equal(read_mask(tmp_path / "a.tif")[0], values)


def test_white_is_zero_needs_whole_numbers(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.float32), photometric="miniswhite")
    with pytest.raises(UserError, match="white as zero, with float32 values; save it with black"):
        read_image(tmp_path / "a.tif", "X-ray", (0, 1))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_the_orientation_tag_turns_image_and_mask(orientation, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    if ending == "tif":
        tags = [(EXIF, "H", 1, orientation, True)]
        tifffile.imwrite(path, MASK * 255, extratags=tags)
    else:
        exif = Image.Exif()
        exif[EXIF] = orientation
        Image.fromarray(MASK * 255).save(path, exif=exif, quality=100)
    wanted = upright(MASK * 255, orientation)
    pixels = read_image(path, "X-ray").pixels
    np.testing.assert_allclose(pixels, wanted / 255, atol=0.1 if ending == "jpg" else 1e-6)
    if ending == "jpg":
        by_opencv = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)  # it obeys the tag, too
        assert np.array_equal(by_opencv > 127, pixels > 0.5)
    else:
        assert np.array_equal(read_mask(path)[0], wanted)


def test_each_slice_of_a_stack_is_turned(tmp_path):
    stack = np.stack([GREY, GREY // 2, 255 - GREY])
    how = {"photometric": "minisblack", "extratags": [(EXIF, "H", 1, 6, True)]}
    tifffile.imwrite(tmp_path / "a.tif", stack, **how)
    pixels = read_image(tmp_path / "a.tif", "X-ray", (0, 255)).pixels
    for number in range(3):
        np.testing.assert_allclose(pixels[number] * 255, upright(stack[number], 6), atol=1e-4)


def test_pages_written_one_by_one_are_a_stack(tmp_path):
    for number in range(4):
        how = {"append": number > 0, "photometric": "minisblack", "metadata": None}
        tifffile.imwrite(tmp_path / "a.tif", GREY // (number + 1), contiguous=False, **how)
    picture = read_image(tmp_path / "a.tif", "MR", (0, 255))
    wanted = np.stack([GREY // (number + 1) for number in range(4)])
    np.testing.assert_allclose(picture.pixels * 255, wanted, atol=1e-4)
    assert is_stack(tmp_path / "a.tif")
    assert targets([tmp_path / "a.tif"], tmp_path / "out").keys() == {tmp_path / "out/a_labels.tif"}


def test_pages_of_different_sizes_are_refused_and_thumbnails_are_not(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    tifffile.imwrite(tmp_path / "a.tif", GREY[:10, :15], append=True)
    with pytest.raises(UserError, match="2 images of different sizes or types; save each of them"):
        read_image(tmp_path / "a.tif", "X-ray")
    tifffile.imwrite(tmp_path / "b.tif", GREY)
    tifffile.imwrite(tmp_path / "b.tif", GREY[:10, :15], append=True, subfiletype=1)
    np.testing.assert_allclose(
        read_image(tmp_path / "b.tif", "X-ray").pixels * 255, GREY, atol=1e-4
    )
    assert not is_stack(tmp_path / "b.tif")


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colour_of_16_bits_keeps_them_and_needs_a_window(ending, tmp_path):
    values = RANDOM.integers(0, 4096, (20, 30, 3), dtype=np.uint16)
    path = tmp_path / f"a.{ending}"
    if ending == "png":
        cv2.imwrite(str(path), values[..., ::-1])
    else:
        tifffile.imwrite(path, values, photometric="rgb")
    pixels = read_image(path, "microscopy", (0, 4095)).pixels
    np.testing.assert_allclose(pixels, values / 4095, atol=1e-6)
    with pytest.raises(UserError, match=r"uint16 values .*, not 8 bits; add `window"):
        read_image(path, "microscopy")


def test_the_palette_of_a_tiff_is_colour_in_an_image_and_numbers_in_a_mask(tmp_path):
    indexed = Image.fromarray(MASK, mode="P")
    indexed.putpalette([10, 20, 30, 220, 110, 66])
    indexed.save(tmp_path / "a.tif")
    colours = np.array([[10, 20, 30], [220, 110, 66]])[MASK]
    pixels = read_image(tmp_path / "a.tif", "X-ray").pixels
    np.testing.assert_allclose(pixels * 255, colours, atol=1e-4)
    assert np.array_equal(read_mask(tmp_path / "a.tif")[0], MASK)


COLOURS = np.stack([GREY, GREY // 2, 255 - GREY])  # C, Y, X
STACK = np.stack([GREY, GREY // 2, 255 - GREY, GREY // 3])  # Z, Y, X


@pytest.mark.parametrize("how", [{"imagej": True}, {"ome": True}])
@pytest.mark.parametrize(
    ("values", "axes", "wanted"),
    [
        (COLOURS, "CYX", np.moveaxis(COLOURS, 0, -1)),
        (STACK, "ZYX", STACK),
        (GREY[None], "ZYX", GREY),
        (GREY[None, None], "ZCYX", GREY),
    ],
)
def test_axes_that_a_file_names(how, values, axes, wanted, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack", metadata={"axes": axes}, **how)
    picture = read_image(path, "X-ray", (0, 255))
    np.testing.assert_allclose(picture.pixels * 255, wanted, atol=1e-4)
    assert is_stack(path) == (wanted is STACK)


@pytest.mark.parametrize(
    ("values", "axes", "said"),
    [
        (COLOURS[:2], "CYX", "has 2 channels"),
        (np.stack([COLOURS] * 4), "ZCYX", "has the axes Z = 4, C = 3"),
        (STACK, "TYX", "has the axes T = 4"),
        (np.stack([STACK] * 2), "TZYX", "has the axes T = 2, Z = 4"),
    ],
)
def test_axes_that_cannot_be_obeyed(values, axes, said, tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, values, photometric="minisblack", metadata={"axes": axes}, ome=True)
    with pytest.raises(UserError, match=said):
        read_image(path, "X-ray", (0, 255))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_that_are_not_colours(channels, tmp_path):
    values = np.stack([GREY] * channels, -1)
    how = {"photometric": "minisblack", "planarconfig": "contig"} if channels > 1 else {}
    tifffile.imwrite(tmp_path / "a.tif", values, **how)
    if channels == 1:
        picture = read_image(tmp_path / "a.tif", "X-ray")
        np.testing.assert_allclose(picture.pixels * 255, GREY, atol=1e-4)
        return
    with pytest.raises(UserError, match=f"has {channels} channels"):
        read_image(tmp_path / "a.tif", "X-ray")


def test_three_samples_that_are_no_colours_are_refused(tmp_path):
    values = np.stack([GREY] * 3, -1)
    how = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", values, **how)
    with pytest.raises(UserError, match="3 channels that it does not declare as colours; save it"):
        read_image(tmp_path / "a.tif", "X-ray")


@pytest.mark.parametrize("how", [{"imagej": True, "metadata": {"axes": "ZYX"}}, {}])
def test_a_stack_of_three_columns_is_no_colour(how, tmp_path):
    narrow = STACK[:, :, :3]
    tifffile.imwrite(tmp_path / "a.tif", narrow, photometric="minisblack", **how)
    picture = read_image(tmp_path / "a.tif", "X-ray", (0, 255))
    np.testing.assert_allclose(picture.pixels * 255, narrow, atol=1e-4)


def test_spacing_of_ome_and_imagej(tmp_path):
    sizes: dict = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}
    sizes |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm", "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(tmp_path / "a.tif", STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    assert read_image(tmp_path / "a.tif", "MR").spacing == pytest.approx((2.0, 0.25e-3, 0.5e-3))
    how = {"metadata": {"axes": "ZYX", "spacing": 3.5, "unit": "mm"}, "resolution": (2, 4)}
    tifffile.imwrite(tmp_path / "b.tif", STACK, imagej=True, **how)
    assert read_image(tmp_path / "b.tif", "MR").spacing == pytest.approx((3.5, 0.25, 0.5))
    tifffile.imwrite(tmp_path / "c.tif", STACK, photometric="minisblack", resolution=(72, 72))
    assert read_image(tmp_path / "c.tif", "MR").spacing == (1.0, 1.0, 1.0)


def test_labels_of_a_stack_are_a_stack(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    picture = read_image(tmp_path / "a.tif", "MR")
    labels = (STACK > 100).astype(np.int64)
    write_labels(tmp_path / "a_labels.tif", picture, labels)
    assert np.array_equal(read_mask(tmp_path / "a_labels.tif")[0], labels)
    assert np.array_equal(tifffile.imread(tmp_path / "a_labels.tif"), labels)


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_a_lossy_mask_is_refused(ending, tmp_path):
    path = tmp_path / f"m.{ending}"
    if ending == "jpg":
        Image.fromarray(MASK * 255).save(path)
    else:
        tifffile.imwrite(path, MASK * 255, compression="jpeg")
    read_image(path, "X-ray")
    with pytest.raises(UserError, match="is a JPEG, which changes the values of labels; save the"):
        read_mask(path)


def test_cmyk_and_lab_are_refused(tmp_path):
    for mode in ("CMYK", "LAB"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode}.tif")
        with pytest.raises(UserError, match=r"save it as RGB or grey"):
            read_image(tmp_path / f"{mode}.tif", "X-ray")


def png_of_few_bits(path, values, bits):
    """Write grey values as the PNG specification (section 7.2) packs them."""
    packed = values.reshape(len(values), -1, 8 // bits)
    weights = 1 << np.arange(8 - bits, -1, -bits)
    rows = b"".join(b"\0" + row.tobytes() for row in (packed @ weights).astype(np.uint8))
    head = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    content = [
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(content))


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_2_or_4_bits_are_not_spread(bits, tmp_path):
    labels = RANDOM.integers(0, 2**bits, (20, 32))
    png_of_few_bits(tmp_path / "a.png", labels, bits)
    assert np.array_equal(read_mask(tmp_path / "a.png")[0], labels)
    pixels = read_image(tmp_path / "a.png", "X-ray").pixels  # OpenCV spreads them, too
    assert np.array_equal(np.rint(pixels * 255), cv2.imread(str(tmp_path / "a.png"), 0))
    np.testing.assert_allclose(pixels, labels / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_a_mask_with_white_before_black_is_refused(ending, tmp_path):
    """As a picture it is what Pillow shows."""
    path = tmp_path / f"a.{ending}"

    def write(colours):
        if ending == "tif":
            table = np.zeros((3, 256), np.uint16)
            table[:, :2] = np.repeat(colours, 3).reshape(2, 3).T * 257
            tifffile.imwrite(path, MASK, photometric="palette", colormap=table)
        else:
            picture = Image.fromarray(MASK).convert("P")
            picture.putpalette(np.repeat(colours, 3).tolist())
            picture.save(path)

    write([255, 0])
    shown = read_image(path, "X-ray").pixels
    assert np.array_equal(shown[..., 0] if shown.ndim == 3 else shown, 1 - MASK)
    with pytest.raises(UserError, match="a palette in which 0 is brighter than 1; save the mask"):
        read_mask(path)
    write([0, 254])
    assert np.array_equal(read_mask(path)[0] > 0, MASK)


def test_the_name_of_a_file_is_that_of_its_format(tmp_path):
    """Pillow would read the first page of the stack, and JPEG 2000 may have lost labels."""
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, GREY]), photometric="minisblack")
    (tmp_path / "a.tif").rename(tmp_path / "stack.png")
    Image.fromarray(GREY).save(tmp_path / "a.jp2")
    (tmp_path / "a.jp2").rename(tmp_path / "lossy.png")
    for name in ("stack.png", "lossy.png"):
        with pytest.raises(UserError, match=r"cannot be read as \.png \(cannot identify image"):
            read_image(tmp_path / name, "X-ray")


def test_an_animation_is_refused(tmp_path):
    first, *others = (Image.fromarray(GREY // part) for part in (1, 2, 3))
    first.save(tmp_path / "a.png", save_all=True, append_images=others)
    with pytest.raises(UserError, match="is an animation of 3 pictures; save each picture"):
        read_image(tmp_path / "a.png", "X-ray")
