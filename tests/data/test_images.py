"""Pictures and volumes are read with the values, the axes and the spacing that the files hold."""

import nibabel as nib
import numpy as np
import oracle
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from medsaga_lib.data.images import read_image, read_mask, scale
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(3)
GREY = RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
VOLUME = RANDOM.integers(-1200, 1200, (3, 4, 6)).astype(np.int16)  # x, y, z
LPS = np.diag([-1.0, -1, 1, 1])  # the axes of the library; nothing is turned


def assert_picture(picture, expected, spacing):
    assert picture.pixels.dtype == np.float32
    np.testing.assert_allclose(picture.pixels, expected, rtol=0, atol=1e-6)
    assert picture.spacing == spacing


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
@pytest.mark.parametrize("values", [GREY, COLOUR], ids=["grey", "colour"])
def test_pictures_of_8_bits(tmp_path, ending, values):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(values).save(path)
    picture = read_image(path, "X-ray")
    assert_picture(picture, values / 255, (1.0, 1.0))
    assert picture.shape == (5, 7)
    assert picture.geometry is None


def test_jpeg_is_read_in_colour(tmp_path):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    Image.fromarray(flat).save(tmp_path / "a.JPG", quality=95)
    picture = read_image(tmp_path / "a.JPG", "endoscopy")
    np.testing.assert_allclose(picture.pixels, flat / 255, atol=3 / 255)


def test_bits_and_palette(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "bits.png")
    assert_picture(read_image(tmp_path / "bits.png", "X-ray"), GREY > 127, (1.0, 1.0))
    indexed = Image.fromarray(GREY % 3, mode="P")
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    indexed.save(tmp_path / "indexed.png")
    colours = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1]])[GREY % 3]
    assert_picture(read_image(tmp_path / "indexed.png", "X-ray"), colours, (1.0, 1.0))
    np.testing.assert_array_equal(read_mask(tmp_path / "indexed.png")[0], GREY % 3)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_need_a_window(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    values = GREY.astype(np.uint16) * 256
    if ending == "png":
        Image.fromarray(values).save(path)
    else:
        tifffile.imwrite(path, values)
    expected = np.clip((values.astype(float) - 1000) / 40000, 0, 1)
    assert_picture(read_image(path, "X-ray", (1000, 41000)), expected, (1.0, 1.0))
    with pytest.raises(UserError, match=r"not 8 bits; add `window = \[low, high\]`"):
        read_image(path, "X-ray")


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_colour_tiff_in_pixels_or_in_planes(tmp_path, planes, compression):
    colours = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
    stored = colours if planes == "contig" else np.moveaxis(colours, -1, 0)
    how = {"photometric": "rgb", "planarconfig": planes, "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", stored, **how)
    assert_picture(read_image(tmp_path / "a.tif", "X-ray"), colours / 255, (1.0, 1.0))


def test_pages_of_a_tiff_are_slices(tmp_path):
    pages = np.stack([GREY, 255 - GREY, GREY // 2])
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack", compression="lzw")
    low, high = np.percentile(pages[pages > 0], [0.5, 99.5])
    expected = np.clip((pages - low) / (high - low), 0, 1)
    assert_picture(read_image(tmp_path / "a.tif", "X-ray"), expected, (1.0, 1.0, 1.0))


def test_nifti_axes_spacing_and_affine(tmp_path):
    affine = np.array([[-0.5, 0, 0, 9], [0, -0.75, 0, -3], [0, 0, 4, 1], [0, 0, 0, 1.0]])
    nib.Nifti1Image(VOLUME, affine).to_filename(tmp_path / "a.nii.gz")
    picture = read_image(tmp_path / "a.nii.gz", "CT")
    expected = np.clip((VOLUME.transpose(2, 1, 0) + 160.0) / 400, 0, 1)  # level 40, width 400
    assert_picture(picture, expected, (4.0, 0.75, 0.5))
    assert picture.shape == (6, 4, 3)
    np.testing.assert_array_equal(picture.geometry.affine, affine)
    assert picture.pixels[5, 3, 1] == pytest.approx(expected[5, 3, 1])


def test_nifti_scale_factors_are_applied(tmp_path):
    image = nib.Nifti1Image(VOLUME, LPS)
    image.header.set_slope_inter(2, -100)
    image.to_filename(tmp_path / "a.nii")
    stored = nib.load(tmp_path / "a.nii").get_fdata()
    low, high = np.percentile(stored[stored > 0], [0.5, 99.5])
    expected = np.clip((stored.T - low) / (high - low), 0, 1)
    assert_picture(read_image(tmp_path / "a.nii", "MR"), expected, (1.0, 1.0, 1.0))


@settings(max_examples=25)
@given(hnp.arrays(np.float32, (4, 5, 6), elements=st.floats(-1000, 1000, width=32), unique=True))
def test_percentiles_of_a_volume(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("volume") / "a.nii"
    nib.Nifti1Image(values, LPS).to_filename(path)
    pixels = read_image(path, "MR").pixels
    above = values[values > 0] if (values > 0).any() else values
    ordered = np.sort(above.ravel().astype(np.float64))

    def percentile(p):  # linear between the order statistics, by hand
        place = p / 100 * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    low, high = percentile(0.5), percentile(99.5)
    expected = np.clip((values.T.astype(np.float64) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(pixels, expected, atol=2e-3)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_volumes_are_scaled_as_litemedsams_script_does(tmp_path, modality):
    stored = oracle.read("litemedsam_preprocessing")["ct_mr_windowing"][modality]
    described, images = stored["volume"], stored["images"]
    values = oracle.fill.integers(described["tag"], described["shape"], 2400) - 1000
    nib.Nifti1Image(values.astype(np.int16).T, LPS).to_filename(tmp_path / "a.nii")
    labelled = read_image(tmp_path / "a.nii", modality).pixels[1:4]  # the script drops the others
    levels = (255 * labelled + 1e-3).astype(np.uint8)
    sample = levels.reshape(-1)[oracle.fill.sample_indices(levels.size)].astype(int)
    assert np.abs(sample - images["sample"]).max() <= 1  # a grey level: it is cut off, not rounded
    assert levels.mean() == pytest.approx(images["mean"], abs=0.1)


def test_a_window_goes_before_every_rule(tmp_path):
    nib.Nifti1Image(VOLUME, LPS).to_filename(tmp_path / "a.nii")
    for modality in ("CT", "MR"):
        pixels = read_image(tmp_path / "a.nii", modality, (-1000, 1000)).pixels
        np.testing.assert_allclose(pixels, np.clip((VOLUME.T + 1000) / 2000, 0, 1), atol=1e-6)


@pytest.mark.parametrize("length", [float("nan"), float("inf")])
def test_voxels_have_a_size(tmp_path, length):
    np.savez(tmp_path / "a.npz", imgs=np.zeros((2, 5, 6), np.uint8), spacing=[1.0, length, 1.0])
    with pytest.raises(UserError, match=r"has the voxel size .* correct the voxel size"):
        read_image(tmp_path / "a.npz", "CT")


def test_a_constant_volume_is_black(tmp_path):
    nib.Nifti1Image(np.full((3, 4, 5), 7.0), LPS).to_filename(tmp_path / "a.nii")
    assert not read_image(tmp_path / "a.nii", "MR").pixels.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool])
@pytest.mark.parametrize("values", [GREY, COLOUR], ids=["grey", "colour"])
def test_npy_files_hold_one_image(tmp_path, values, dtype):
    unit = values / 255
    stored = {np.uint8: values, bool: values > 127}.get(dtype, unit.astype(dtype))
    np.save(tmp_path / "a.npy", stored)
    picture = read_image(tmp_path / "a.npy", "CT")
    assert_picture(picture, stored if dtype is bool else unit, (1.0, 1.0))


def test_npy_files_of_other_values(tmp_path):
    np.save(tmp_path / "a.npy", GREY * 2.0)
    with pytest.raises(UserError, match="not 8 bits; add `window"):
        read_image(tmp_path / "a.npy", "MR")
    np.save(tmp_path / "b.npy", VOLUME)  # three axes without colours are a volume
    picture = read_image(tmp_path / "b.npy", "CT")
    assert_picture(picture, np.clip((VOLUME + 160.0) / 400, 0, 1), (1.0, 1.0, 1.0))
    np.save(tmp_path / "c.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"cannot be read as .npy .*Python objects"):
        read_image(tmp_path / "c.npy", "MR")
    np.save(tmp_path / "d.npy", GREY[..., :3].astype(np.int64))
    np.testing.assert_array_equal(read_mask(tmp_path / "d.npy")[0], GREY[..., :3])


def test_npz_of_the_challenge(tmp_path):
    np.savez(tmp_path / "2DBox_X-Ray_0001.npz", imgs=COLOUR, boxes=np.array([[0, 0, 3, 3]]))
    picture = read_image(tmp_path / "2DBox_X-Ray_0001.npz", "X-ray")
    assert_picture(picture, COLOUR / 255, (1.0, 1.0))
    volume = RANDOM.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    np.savez(tmp_path / "3DBox_CT_0001.npz", imgs=volume, spacing=np.array([0.5, 0.75, 4.0]))
    picture = read_image(tmp_path / "3DBox_CT_0001.npz", "CT")  # stored as (x, y, z)
    assert_picture(picture, volume / 255, (4.0, 0.75, 0.5))


def test_npz_without_a_picture(tmp_path):
    np.savez(tmp_path / "a.npz", gts=GREY)
    with pytest.raises(UserError, match=r"a\.npz: has no array 'imgs' \(its arrays: gts\)"):
        read_image(tmp_path / "a.npz", "CT")


def test_objects_in_an_npz_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", imgs=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"a\.npz: cannot be read"):
        read_image(tmp_path / "a.npz", "CT")


def test_mask_of_whole_floats(tmp_path):
    labels = RANDOM.integers(0, 3, (3, 4, 5)).astype(np.float32)
    nib.Nifti1Image(labels, LPS @ np.diag([1, 2, 3, 1])).to_filename(tmp_path / "m.nii.gz")
    mask, spacing = read_mask(tmp_path / "m.nii.gz")
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, labels.T)
    assert spacing == (3.0, 2.0, 1.0)


def test_mask_of_many_instances(tmp_path):
    ids = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000
    Image.fromarray(ids).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png")[0], ids)


@given(
    hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5)),
    st.floats(-3000, 3000),
    st.floats(1, 5000),
)
def test_scaling_keeps_the_order_within_0_and_1(values, low, width):
    scaled = scale(values, low, low + width)
    assert scaled.min() >= 0
    assert scaled.max() <= 1
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(scaled.ravel()[order]) >= 0).all()


@pytest.mark.filterwarnings("error")
def test_a_range_beyond_single_precision_is_scaled():
    values = np.array([-3e38, 0.0, 3e38])
    scaled = scale(values, np.float32(-3e38), np.float32(3e38))
    np.testing.assert_allclose(scaled, [0, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(scale(values * 1e10, -3e48, 3e48), [0, 0.5, 1])
    ends = np.array([-1.7e308, 0.0, 1.7e308])
    np.testing.assert_allclose(scale(ends, ends[0], ends[-1]), [0, 0.5, 1])
    assert scale(values, -3e38, 3e38).dtype == np.float32
