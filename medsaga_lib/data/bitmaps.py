"""Reads the stored values of pictures: PNG, JPEG, BMP and TIFF.

Pillow reads PNG, JPEG and BMP, and tifffile reads TIFF. What a file declares about its pixels is
obeyed: the orientation, the palette, white as zero, the axes, the pages and their resolution.
Pillow keeps 8 of 16 bits of a colour PNG, so imagecodecs reads those.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medsaga_lib.data import headers
from medsaga_lib.data.problems import BadFile
from medsaga_lib.data.quiet import quiet

Array = np.ndarray

PILLOWS = ("PNG", "JPEG", "BMP")  # the formats that Pillow reads here
TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
# TIFF 6.0, section 8: the place of the first row and column, as (flip rows, flip columns, swap)
TURNS = {1: (False, False, False), 2: (False, True, False), 3: (True, True, False),
         4: (True, False, False), 5: (False, False, True), 6: (False, True, True),
         7: (True, True, True), 8: (True, False, True)}  # fmt: skip
ORIENTATION = 274  # the tag's number
REDUCED = 1  # bit of NewSubfileType: a smaller copy of another page
# Compressions of TIFF whose values `headers.MOST` limits
LIMITED = ("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "JPEG")
DEPTH = "ZIQ"  # axes of a TIFF that are slices: depth, sequence, and "other" without a name


def read_bitmap(path: Path, is_mask: bool) -> Array:
    """Return the values of a PNG, JPEG or BMP, upright: (H, W) or (H, W, 3).

    is_mask: the values of a palette image are its indices, and not its colours; JPEG is refused.
    """
    from PIL import ImageOps

    with _picture(path) as stored:
        bytes_each = 2 * len(stored.getbands())  # no picture of the formats has more
        headers.require_room(path, stored.size, bytes_each, path.stat().st_size)
        if is_mask and stored.format in ("JPEG", "MPO"):
            _refuse_lossy(path)
        if stored.format == "PNG" and getattr(stored, "n_frames", 1) > 1:
            what = f"is an animation of {stored.n_frames} pictures"
            raise BadFile(path, what, "save each picture in a file of its own.")
        picture = ImageOps.exif_transpose(stored)
        mode = picture.mode
        if mode in TRANSPARENT:
            what = f"has a transparency channel ({mode})"
            raise BadFile(path, what, "save it as RGB or grey, without transparency.")
        if mode == "CMYK":
            raise BadFile(path, "is a CMYK image", "save it as RGB or grey.")
        if mode == "P" and not is_mask:
            return np.asarray(picture.convert("RGB"))
        if mode == "P":
            values = np.asarray(picture)
            _require_dark_zero(path, values, np.array(picture.getpalette()).reshape(-1, 3))
            return values
        if mode not in ("1", "L", "RGB", "I", "F") and not mode.startswith("I;16"):
            raise BadFile(path, f"has the colour model {mode}", "save it as RGB or grey.")
        if mode == "RGB" and stored.format == "PNG" and _png_bits(path) == 16:
            import imagecodecs

            return _turned(imagecodecs.png_decode(path.read_bytes()), _exif_turn(stored))
        values = np.asarray(picture)
        few_bits = stored.format == "PNG" and mode == "L" and _png_bits(path) in (2, 4)
        if is_mask and few_bits:  # Pillow spreads them over 0 to 255
            return values // (255 // (2 ** _png_bits(path) - 1))
        return values


class Declared(NamedTuple):
    """Declarations of a picture's file about its pixels, which some programs ignore.

    turn: the value of the orientation tag; 1 is upright. opaque: it has a transparency channel, in
    which no pixel is transparent. white_zero: white is stored as 0. spacing: it gives a pixel size.
    """

    turn: int
    opaque: bool = False
    white_zero: bool = False
    spacing: bool = False


def declared(path: Path) -> Declared:
    """Return what the file of a PNG, JPEG, BMP or TIFF declares."""
    if path.suffix.lower() in (".tif", ".tiff"):
        with _opened(path) as file:
            page: Any = file.pages[0]
            tag = page.tags.get(ORIENTATION)
            turn = 1 if tag is None else int(tag.value)
            white = page.photometric.name == "MINISWHITE"
            return Declared(turn, False, white, _tiff_spacing(file) is not None)
    with _picture(path) as stored:
        alpha = stored.getchannel("A").getextrema() if stored.mode in ("RGBA", "LA") else (0, 0)
        return Declared(_exif_turn(stored), opaque=alpha == (255, 255))


def read_opaque(path: Path) -> Array:
    """Return the values of a PNG or BMP upright, without its transparency channel."""
    with _picture(path) as stored:
        values = np.asarray(stored)
        if stored.format == "PNG" and _png_bits(path) == 16:  # Pillow keeps 8 bits
            import imagecodecs

            values = imagecodecs.png_decode(path.read_bytes())
        colours = values[..., :-1]  # (H, W, 1) or (H, W, 3)
        return _turned(colours[..., 0] if colours.shape[-1] == 1 else colours, _exif_turn(stored))


def _picture(path: Path) -> Any:
    """Open a PNG, JPEG or BMP; a file of another format with this name is an error."""
    from PIL import Image

    return Image.open(path, formats=PILLOWS)


def _require_dark_zero(path: Path, values: Array, colours: Array) -> None:
    """Raise BadFile if a mask of two greys has the brighter one as its smaller value.

    values: indices into the palette `colours`, (N, 3).
    """
    found = np.flatnonzero(np.bincount(values.ravel()))
    if len(found) == 2 and found[1] < len(colours):
        low, high = colours[found]
        if (low == low[0]).all() and (high == high[0]).all() and low[0] > high[0]:
            what = f"has a palette in which {found[0]} is brighter than {found[1]}"
            raise BadFile(path, what, "save the mask in grey, with the background as 0.")


def _exif_turn(picture: Any) -> int:
    return int(picture.getexif().get(ORIENTATION, 1))


def _png_bits(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]  # after the signature, the length, "IHDR", width and height


def _refuse_lossy(path: Path) -> None:
    what = "is a JPEG, which changes the values of labels"
    raise BadFile(path, what, "save the mask without loss, for example as PNG.")


def _turned(values: Array, orientation: int) -> Array:
    """Return a picture (H, W, ...) upright, by the value of its orientation tag."""
    rows, columns, swap = TURNS.get(orientation, TURNS[1])
    if swap:
        values = np.swapaxes(values, 0, 1)
    if rows:
        values = values[::-1]
    if columns:
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def read_tiff(path: Path, is_mask: bool) -> tuple[Array, int, tuple[float, ...] | None]:
    """Return values, dimensions and spacing in mm of a TIFF.

    Returns:
        values (H, W), (H, W, 3) or (D, H, W), upright; 2 or 3; and the spacing along the axes, or
        None if the file gives none.
    """
    with _opened(path) as file:
        series = _images(file)
        first = series[0]
        page: Any = first.keyframe
        held = path.stat().st_size if page.compression.name in LIMITED else None
        for one in series:
            headers.require_room(path, one.shape, one.dtype.itemsize, held)
        if is_mask and "JPEG" in page.compression.name:
            _refuse_lossy(path)
        values, axes = first.asarray(), first.axes
        if len(series) > 1:  # pages that were appended one by one
            kinds = {(one.shape, one.dtype, one.axes) for one in series}
            if len(kinds) > 1:
                what = f"holds {len(series)} images of different sizes or types"
                raise BadFile(path, what, "save each of them in a file of its own.")
            values, axes = np.stack([one.asarray() for one in series]), "I" + axes
        tag = page.tags.get(ORIENTATION)
        spacing = _tiff_spacing(file)
        values, axes = _by_photometric(path, values, axes, page, is_mask)
        if "S" in axes and page.photometric.name == "MINISBLACK" and page.samplesperpixel == 3:
            what = "has 3 channels that it does not declare as colours"
            raise BadFile(path, what, "save it as RGB, or slices as pages.")
    values, depth = _in_order(path, values, axes)
    orientation = int(tag.value) if tag is not None else 1
    if orientation != 1:
        parts = values if depth else values[None]
        values = np.stack([_turned(part, orientation) for part in parts])
        values = values if depth else values[0]
        if spacing is not None and TURNS.get(orientation, TURNS[1])[2]:
            spacing = (*spacing[:-2], spacing[-1], spacing[-2])
    dimensions = 3 if depth else 2
    return values, dimensions, None if spacing is None else spacing[-dimensions:]


def is_stack(path: Path) -> bool:
    """Return whether a TIFF has slices; False if it cannot be read."""
    try:
        with quiet, _opened(path) as file:
            series = _images(file)
            sizes = zip(series[0].axes, series[0].shape, strict=True)
            return len(series) > 1 or any(axis in DEPTH and length > 1 for axis, length in sizes)
    except (OSError, ValueError, BadFile):  # the reader of its values says what is wrong
        return False


def write_stack(path: Path, labels: Array, spacing: tuple[float, ...], like: Path | None) -> None:
    """Write labels (D, H, W), uint8 or uint16, as a TIFF with a page for each slice.

    spacing: in mm along (z, y, x). like: a file of OME or ImageJ whose kind of metadata is used;
    files of other kinds do not give a spacing.
    """
    import tifffile

    is_ome = is_imagej = False
    if like is not None:
        with quiet, _opened(like) as file:
            is_ome, is_imagej = file.is_ome, file.is_imagej
    how: dict[str, Any] = {"photometric": "minisblack", "compression": "zlib"}
    metadata: dict[str, Any] = {"axes": "ZYX"}
    known = set(spacing) != {1.0}
    if is_ome and known:
        sizes = zip("ZYX", spacing, strict=True)
        metadata |= {f"PhysicalSize{axis}": length for axis, length in sizes}
        metadata |= {f"PhysicalSize{axis}Unit": "mm" for axis in "ZYX"}
    if is_imagej:
        del how["compression"]  # ImageJ reads hyperstacks without compression
        if known:
            metadata |= {"spacing": spacing[0], "unit": "mm"}
            how["resolution"] = 1 / spacing[2], 1 / spacing[1]
    if is_ome or is_imagej:
        how |= {"metadata": metadata, "ome": is_ome, "imagej": is_imagej and not is_ome}
    tifffile.imwrite(path, labels, **how)


def _opened(path: Path) -> Any:
    """Open a TIFF after a check of its directories."""
    import tifffile

    headers.require_tiff(path)
    return tifffile.TiffFile(path)


def _images(file: Any) -> list[Any]:
    """Return the series of a TIFF without smaller copies of another image, such as thumbnails."""
    whole = [one for one in file.series if not one.keyframe.subfiletype & REDUCED]
    return whole or list(file.series)


def _by_photometric(
    path: Path, values: Array, axes: str, page: Any, is_mask: bool
) -> tuple[Array, str]:
    """Return the values as brightness or RGB, whatever the file stores, and their axes."""
    kind = page.photometric.name
    if kind == "MINISWHITE":
        if values.dtype == bool:
            return ~values, axes
        if values.dtype.kind != "u":
            what = f"declares white as zero, with {values.dtype} values"
            raise BadFile(path, what, "save it with black as zero.")
        return np.asarray(2**page.bitspersample - 1 - values, values.dtype), axes
    if kind == "PALETTE":
        colours = np.moveaxis(page.colormap, 0, -1)  # 16 bits each
        if is_mask:
            _require_dark_zero(path, values, colours)
            return values, axes
        return (colours[values] >> 8).astype(np.uint8), axes + "S"
    if kind in ("MINISBLACK", "RGB", "YCBCR"):  # tifffile returns RGB for YCbCr
        return values, axes
    raise BadFile(path, f"has the colour model {kind}", "save it as RGB or grey.")


def _in_order(path: Path, values: Array, axes: str) -> tuple[Array, bool]:
    """Return values (H, W), (H, W, 3) or (D, H, W), and whether they have slices."""
    named = dict(zip(axes, values.shape, strict=True))
    for axis, length in list(named.items()):
        if length == 1 and axis not in "YX":
            values, axes = values.squeeze(axes.index(axis)), axes.replace(axis, "")
            del named[axis]
    colour = [axis for axis in axes if axis in "SC"]
    depth = [axis for axis in axes if axis in DEPTH]
    others = [axis for axis in axes if axis not in "SCYX" + DEPTH]
    if others or len(colour) > 1 or len(depth) > 1 or (colour and depth):
        size = ", ".join(f"{axis} = {length}" for axis, length in named.items())
        what = f"has the axes {size}"
        raise BadFile(path, what, "save one image, or one stack of grey slices, in each file.")
    if colour and named[colour[0]] != 3:
        what = f"has {named[colour[0]]} channels"
        if named[colour[0]] == 4:
            what = "has 4 channels (RGBA)"
        raise BadFile(path, what, "save it as RGB or grey, without transparency.")
    wanted = "".join(depth) + "YX" + "".join(colour)
    values = np.transpose(values, [axes.index(axis) for axis in wanted])
    return values, bool(depth)


def _tiff_spacing(file: Any) -> tuple[float, ...] | None:
    """Return the spacing (z, y, x) in mm that OME or ImageJ metadata give, or None.

    The resolution tags alone are not used: programs write 72 per inch into any file.
    """
    if file.is_ome:
        return _ome_spacing(file.ome_metadata)
    if file.is_imagej:
        return _imagej_spacing(file)
    return None


MILLIMETRES = {"nm": 1e-6, "µm": 1e-3, "um": 1e-3, "micron": 1e-3, "microns": 1e-3, "mm": 1.0,
               "cm": 10.0, "m": 1000.0, "inch": 25.4}  # fmt: skip


def _ome_spacing(text: str) -> tuple[float, ...] | None:
    from xml.etree import ElementTree  # nothing outside the file is fetched

    pixels = next(
        (e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("Pixels")), None
    )
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return None
    lengths = []
    for axis in "ZYX":
        length = float(pixels.get(f"PhysicalSize{axis}", "nan"))
        lengths.append(
            length * MILLIMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"), np.nan)
        )
    return _whole(lengths)


def _imagej_spacing(file: Any) -> tuple[float, ...] | None:
    found = file.imagej_metadata or {}
    unit = MILLIMETRES.get(str(found.get("unit", "")).replace("\\u00B5", "µ"))
    page = file.pages[0]
    if unit is None or "XResolution" not in page.tags or "YResolution" not in page.tags:
        return None
    lengths = [float(found.get("spacing", np.nan)) * unit]
    for name in ("YResolution", "XResolution"):
        numerator, denominator = page.tags[name].value
        lengths.append(unit * denominator / numerator if numerator else np.nan)
    return _whole(lengths)


def _whole(lengths: list[float]) -> tuple[float, ...] | None:
    """Return (z, y, x); an unknown z is 1, and without y and x there is no spacing."""
    z, y, x = lengths
    if not (0 < y < np.inf and 0 < x < np.inf):
        return None
    return (z if 0 < z < np.inf else 1.0, y, x)
