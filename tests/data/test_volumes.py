"""NRRD, MetaImage and DICOM are read with the values and the grid that other readers give."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicoms import TURN, dicom, empty, write_series
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut
from pydicom.uid import UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from medsaga_lib.data.images import read_image, read_mask, read_stored
from medsaga_lib.data.label_files import targets, write_labels
from medsaga_lib.data.volumes import read_dicom, read_itk
from medsaga_lib.errors import UserError

RANDOM = np.random.default_rng(2)
SLICES = RANDOM.integers(0, 4096, (5, 12, 10)).astype(np.uint16)


@pytest.fixture
def series(tmp_path):
    """A series whose file names and instance numbers run against the positions."""
    changes = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    return write_series(tmp_path / "series", SLICES, **changes)


def test_a_series_is_sorted_by_position_and_scaled(series):
    picture = read_image(series, "CT", (-1024, 7166))
    files = sorted(series.glob("*.dcm"), reverse=True)
    wanted = np.stack([
        (d := pydicom.dcmread(file)).pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
        for file in files
    ])  # fmt: skip
    np.testing.assert_allclose(picture.pixels, (wanted + 1024) / 8190, atol=1e-6)
    assert picture.spacing == pytest.approx((2.5, 0.5, 0.7))
    inside = picture.geometry.affine_inside(picture.shape)
    first = pydicom.dcmread(files[0])
    corner = inside[:3, 3] * [-1, -1, 1]  # to LPS, as in DICOM
    np.testing.assert_allclose(corner, np.array(first.ImagePositionPatient, float), atol=1e-5)
    step = inside[:3, 0] * [-1, -1, 1]  # a step along the row
    np.testing.assert_allclose(step, 0.7 * np.array(TURN[:3], float), atol=1e-5)


def test_labels_of_a_series_lie_on_it(series, tmp_path):
    picture = read_image(series, "CT")
    assert targets([series], tmp_path) == {tmp_path / "series_labels.nii.gz": series}
    labels = (picture.pixels > 0.5).astype(np.int64)
    write_labels(tmp_path / "series_labels.nii.gz", picture, labels)
    assert np.array_equal(read_mask(tmp_path / "series_labels.nii.gz")[0], labels)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    given, written = reader.Execute(), sitk.ReadImage(str(tmp_path / "series_labels.nii.gz"))
    ends = [(0, 0, 0), tuple(n - 1 for n in given.GetSize())]
    for end in ends:
        place = given.TransformIndexToPhysicalPoint(end)
        found = written.TransformPhysicalPointToContinuousIndex(place)
        size = np.array(written.GetSize()) - 1
        assert min(np.abs(np.array(found) - c).max() for c in (0 * size, size)) < 1e-3
    assert nib.load(tmp_path / "series_labels.nii.gz").header.get_xyzt_units()[0] == "mm"


def test_a_series_with_a_gap_or_a_doubled_slice_is_refused(series):
    (series / "97.dcm").unlink()
    with pytest.raises(UserError, match=r"5 mm between instances 99 and 97, but 2\.5 mm elsewhere"):
        read_image(series, "CT")
    dicom(series / "x.dcm", SLICES[0], [-20.0, 30, -5], 99)
    with pytest.raises(UserError, match=r"slices at uneven distances: .*remove the doubled ones"):
        read_image(series, "CT")


def test_two_series_or_none_are_refused(series, tmp_path):
    dicom(series / "other.dcm", SLICES[0], [0.0, 0, 0], 1, series="1.2.3.5")
    with pytest.raises(
        UserError, match="holds 2 DICOM series; give a folder with the files of one"
    ):
        read_image(series, "CT")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no DICOM series.*FOLDER/\*\.png\.$"):
        read_image(tmp_path / "empty", "CT")


def test_a_folder_with_a_single_image_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    dicom(tmp_path / "one/a.dcm", SLICES[0], [0.0, 0, 0])
    with pytest.raises(UserError, match="holds a single image, not a volume; give the file in it"):
        read_image(tmp_path / "one", "X-ray", (0, 4095))


def test_slices_of_another_size_are_refused(series):
    dicom(series / "99.dcm", SLICES[0][:, :8], [-20.0, 30, -5], 100)
    with pytest.raises(UserError, match="slices of different sizes; separate the series"):
        read_dicom(series)


@pytest.mark.parametrize("scaled", [False, True])
def test_monochrome1_is_black_as_zero_with_its_window(scaled, tmp_path):
    values = SLICES[0]
    changes = {"RescaleSlope": 2, "RescaleIntercept": -100} if scaled else {}
    centre, width = (3000, 1500) if scaled else (1500, 800)
    window = {"WindowCenter": centre, "WindowWidth": width}
    path = tmp_path / "a.dcm"
    dicom(path, values, PhotometricInterpretation="MONOCHROME1", **changes, **window)
    picture = read_image(path, "X-ray")
    stored = values * 2.0 - 100 if scaled else values.astype(float)
    bright = 1 - np.clip((stored - (centre - width / 2)) / width, 0, 1)  # white is low
    np.testing.assert_allclose(picture.pixels, bright, atol=1e-4)
    assert picture.spacing == (0.5, 0.7)


@pytest.mark.parametrize("width", [None, 0, "1e999"])
def test_an_x_ray_without_a_window_needs_one(width, tmp_path):
    window = {} if width is None else {"WindowCenter": 100, "WindowWidth": width}
    dicom(tmp_path / "a.dcm", SLICES[0], **window)
    with pytest.raises(UserError, match=r"not 8 bits; add `window = \[low, high\]`"):
        read_image(tmp_path / "a.dcm", "X-ray")
    pixels = read_image(tmp_path / "a.dcm", "X-ray", (0, 4095)).pixels
    np.testing.assert_allclose(pixels, SLICES[0] / 4095, atol=1e-6)


@pytest.mark.parametrize("ending", ["nrrd", "mha", "mhd", "dcm"])
def test_a_damaged_file_is_one_sentence(ending, tmp_path):
    (tmp_path / f"a.{ending}").write_bytes(b"not an image" * 20)
    with pytest.raises(UserError, match=rf"cannot be read as \.{ending} .*; copy or export it"):
        read_image(tmp_path / f"a.{ending}", "CT")


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_pictures_and_what_is_neither_picture_nor_volume(ending, tmp_path):
    flat = sitk.GetImageFromArray(SLICES[0])
    flat.SetSpacing((0.7, 0.5))
    sitk.WriteImage(flat, str(tmp_path / f"a.{ending}"))
    found = read_itk(tmp_path / f"a.{ending}")
    assert np.array_equal(found.values, SLICES[0])
    assert found.spacing == (0.5, 0.7)
    vectors = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.float32), isVector=True)
    sitk.WriteImage(vectors, str(tmp_path / f"v.{ending}"))
    with pytest.raises(UserError, match="has the shape 3 x 4 x 5 x 3; save one image, or one vol"):
        read_itk(tmp_path / f"v.{ending}")


def test_scaled_labels_are_whole_numbers(tmp_path):
    """nibabel stores 0 to 3 with a slope of 1.00000002 (its 16-bit rounding)."""
    labels = RANDOM.integers(0, 4, (4, 5, 6))
    image = nib.Nifti1Image(labels.astype(np.float32), np.eye(4))
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "m.nii")
    stored = nib.load(tmp_path / "m.nii")
    assert np.array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.nii"))).round(), labels.T
    )
    found = read_mask(tmp_path / "m.nii")[0]
    assert np.array_equal(found, labels.T[:, ::-1, ::-1])
    assert stored.dataobj.slope is not None
    nib.save(nib.Nifti1Image(labels * 0.5, np.eye(4)), tmp_path / "half.nii")
    with pytest.raises(UserError, match="holds fractional values"):
        read_mask(tmp_path / "half.nii")


def test_a_mask_in_an_npz_is_gts(tmp_path):
    imgs, gts = SLICES.astype(np.uint8), (SLICES > 2000).astype(np.uint8)
    np.savez(tmp_path / "a.npz", imgs=imgs, gts=gts)
    assert np.array_equal(read_mask(tmp_path / "a.npz")[0], gts)
    np.savez(tmp_path / "b.npz", imgs=imgs)
    with pytest.raises(
        UserError, match=r"has no array 'gts' \(its arrays: imgs\); save the labels"
    ):
        read_mask(tmp_path / "b.npz")


def test_slices_that_are_shifted_in_their_plane_are_refused(tmp_path):
    """SimpleITK 2.5 reads a series with gantry tilt as if its slices were above each other."""
    folder = write_series(tmp_path / "series", SLICES)
    for number, file in enumerate(sorted(folder.glob("*.dcm"))):
        head = pydicom.dcmread(file)
        head.ImagePositionPatient[0] += 0.04 * number
        head.save_as(file)
    with pytest.raises(UserError, match=r"shifted by up to 0\.16 mm in their plane \(gantry tilt"):
        read_dicom(folder)


def test_an_npz_three_voxels_wide_is_what_its_other_arrays_say(tmp_path):
    narrow = SLICES[:, :, :3].astype(np.uint8)
    for name, more in (
        ("gts", {"gts": narrow}),
        ("spacing", {"spacing": [0.7, 0.5, 2.0]}),
        ("boxes", {"boxes": np.zeros((2, 6))}),
    ):
        np.savez(tmp_path / f"{name}.npz", imgs=narrow, **more)
        assert read_image(tmp_path / f"{name}.npz", "CT").shape == narrow.shape
    assert read_image(tmp_path / "spacing.npz", "CT").spacing == (2.0, 0.5, 0.7)
    np.savez(tmp_path / "a.npz", imgs=narrow, gts=narrow[:, :, 0], boxes=np.zeros((2, 4)))
    assert read_image(tmp_path / "a.npz", "CT").shape == narrow.shape[:2]


@pytest.mark.parametrize("scale", [(1, 0), (2, -100)])
def test_monochrome1_with_a_sign(scale, tmp_path):
    """SimpleITK turns signed values v into -1 - v, and the window turns with them."""
    slope, intercept = scale
    values = SLICES[0].astype(np.int16) - 2000
    more = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}
    more |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
    window = {"WindowCenter": 50, "WindowWidth": 3000}
    path = tmp_path / "a.dcm"
    dicom(path, values, PhotometricInterpretation="MONOCHROME1", **more, **window)
    bright = 1 - np.clip((values * float(slope) + intercept - (50 - 1500)) / 3000, 0, 1)
    np.testing.assert_allclose(read_image(path, "X-ray").pixels, bright, atol=1e-4)


def test_a_table_instead_of_a_slope_is_refused(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [4096, 0, 16], bytes(8192), "OD"
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    dicom(tmp_path / "a.dcm", SLICES[0], ModalityLUTSequence=[table])
    with pytest.raises(UserError, match=r"scales its values by a table \(Modality LUT\); export"):
        read_image(tmp_path / "a.dcm", "X-ray", (0, 4095))


COLOURS = np.random.default_rng(6).integers(0, 256, (12, 10, 3)).astype(np.uint8)


@pytest.mark.parametrize("planes", [0, 1])
@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL", "PALETTE COLOR"])
def test_colour_of_dicom(planes, kind, tmp_path):
    """pydicom is the reference."""
    file = empty(tmp_path / "a.dcm", UltrasoundImageStorage, "US", "1.2.3.5")
    file.Rows, file.Columns, file.InstanceNumber = *COLOURS.shape[:2], 1
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.PhotometricInterpretation, file.SamplesPerPixel = kind, 3
    file.PlanarConfiguration = planes
    file.PixelData = (np.moveaxis(COLOURS, -1, 0) if planes else COLOURS).tobytes()
    if kind == "PALETTE COLOR":
        file.SamplesPerPixel, file.PixelData = 1, COLOURS[..., 0].tobytes()
        for name, shift in (("Red", 3), ("Green", 8), ("Blue", 13)):
            table = np.roll(np.arange(256, dtype="<u2") * 256, shift)
            setattr(file, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(file, f"{name}PaletteColorLookupTableData", table.tobytes())
    file["PixelData"].VR = "OB"
    file.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    source = pydicom.dcmread(tmp_path / "a.dcm")
    wanted = source.pixel_array  # in RGB
    if kind == "PALETTE COLOR":
        wanted = apply_color_lut(wanted, source) >> 8
    found = read_itk(tmp_path / "a.dcm")
    assert abs(found.values.astype(int) - wanted.astype(int)).max() <= (kind == "YBR_FULL")
    assert (found.spacing, found.geometry) == ((1.0, 1.0), None)


def test_frames_of_a_film_are_no_slices(tmp_path):
    pixels = COLOURS[..., 0]
    more = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "NumberOfFrames": 2, "FrameTime": 30}
    dicom(tmp_path / "a.dcm", pixels, SOPClassUID=UltrasoundMultiFrameImageStorage, **more)
    for path in (tmp_path / "a.dcm", tmp_path):  # a file, or a folder with it
        with pytest.raises(UserError, match="holds 2 frames without positions, such as those of"):
            read_stored(path)


HEADS = {
    "a.nrrd": "NRRD0004\ntype: short\ndimension: 3\nsizes: 10 12 5\n{}encoding: raw\n"
    "endian: little\n\n",
    "a.mha": "ObjectType = Image\nNDims = 3\nDimSize = 10 12 5\n{}ElementSpacing = 1 1 2\n"
    "ElementType = MET_SHORT\nElementDataFile = LOCAL\n",
}


def with_field(path, field):
    path.write_bytes(HEADS[path.name].format(field).encode() + SLICES.astype("<i2").tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "field", "said"),
    [
        ("a.nrrd", 'spacings: 1 1 2\nunits: "cm" "cm" "cm"\n', "gives lengths in cm, which"),
        ("a.nrrd", 'spacings: 1 1 2\nunits: "mm" "mm" "mm"\n', None),
        ("a.nrrd", 'space: LPS\nspace units: "m" "m" "m"\n', "gives lengths in m, which"),
        ("a.mha", "DistanceUnits = um\n", "gives lengths in um, which"),
        ("a.mha", "DistanceUnits = mm\n", None),
        ("a.mha", "ElementToIntensityFunctionSlope = 2\n", "by ElementToIntensityFunctionSlope"),
        ("a.mha", "ElementToIntensityFunctionSlope = 1.000\n", None),
    ],
)
def test_units_and_scales_that_itk_ignores_are_refused(name, field, said, tmp_path):
    path = with_field(tmp_path / name, field)
    if said is None:
        assert np.array_equal(read_stored(path).values, SLICES)
        return
    with pytest.raises(UserError, match=said):
        read_stored(path)


@pytest.mark.parametrize(
    ("space", "codes"),
    [("", "?"), ("space: scanner-xyz\n", "?"), ("space: RAS\n", "RAS"), ("space: LPS\n", "LPS")],
)
def test_an_nrrd_without_directions_of_the_patient(space, codes, tmp_path):
    field = f"{space}space directions: (1,0,0) (0,1,0) (0,0,2)\n" if space else ""
    path = with_field(tmp_path / "a.nrrd", field)
    assert read_stored(path).geometry.codes == codes


@pytest.mark.parametrize("ending", ["nii", "npy"])
def test_values_with_the_high_byte_first(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    values = SLICES.astype(">i2")
    if ending == "npy":
        np.save(path, values)
    else:
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(values.dtype)
        nib.save(nib.Nifti1Image(values.T, np.diag([-1, -1, 1, 1]), header), path)
    found = read_stored(path).values
    assert str(found.dtype) == "int16"
    assert np.array_equal(found, SLICES)


def test_arrays_with_an_axis_of_one_channel_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", SLICES[0][..., None])
    np.savez(tmp_path / "a.npz", imgs=SLICES[0][..., None])
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UserError, match="has the shape 12 x 10 x 1, of one channel or of"):
            read_stored(tmp_path / name)
