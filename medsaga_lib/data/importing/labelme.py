"""Labelme's JSON files, one for each picture.

Source: wkentaro/labelme, `labelme/utils/shape.py` and `labelme/_label_file.py`. A later shape lies
over an earlier one, as in Labelme's own exports. These draw a polygon with its border; here a shape
has the pixels whose centres it holds, so that its area is right on average.
"""

import base64
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from medsaga_lib.data.importing.found import (
    Array,
    Content,
    Copied,
    Embedded,
    Found,
    Item,
    LabelMap,
    Options,
)
from medsaga_lib.data.importing.labels import values_of_names
from medsaga_lib.data.importing.shapes import circle, is_size, paint, points, polygon, rectangle
from medsaga_lib.data.importing.source import Source, case_name, is_image, read_json
from medsaga_lib.data.problems import BadFile
from medsaga_lib.errors import UserError, counted

LOOKED_FOR = "JSON files with shapes and imagePath"
BACKGROUND, IGNORED = "_background_", "__ignore__"  # names that Labelme keeps for these
WITHOUT_AREA = ("point", "points", "line", "linestrip")
Document = dict[str, Any]


def recognises(source: Source) -> bool:
    """Return whether a JSON file of the source is one of Labelme."""
    return any(_is_labelme(content) for content in source.documents.values())


def find(source: Source, options: Options) -> Found:
    """List the pictures that have a JSON file.

    Raises:
        UserError: a file is damaged, or its picture or a label is missing.
    """
    documents = source.documents_with(_is_labelme, "files of Labelme", LOOKED_FOR)
    if options.channel is not None:
        raise UserError("Labelme has one picture for each image; omit --channel.")
    for path, content in documents.items():
        _require_form(path, content)
    shapes = [shape for content in documents.values() for shape in content["shapes"]]
    areas = {s["label"] for s in shapes if s.get("shape_type") not in WITHOUT_AREA} - {BACKGROUND}
    names = dict(enumerate(sorted(areas), start=1))
    ids = values_of_names(names, options)
    values = {name: ids[number] for number, name in names.items()} | {BACKGROUND: 0}
    found = Found(
        items=[],
        labels={} if options.instances else {ids[number]: name for number, name in names.items()},
    )
    used = set()
    for path, content in documents.items():
        picture = path.parent / str(content["imagePath"]).replace("\\", "/")
        image: Content = Copied(picture)
        if picture.is_file():
            used.add(picture.resolve())
        elif content.get("imageData"):
            image = Embedded(path, _embedded(path))
        else:
            what = f"names the picture '{content['imagePath']}', which is missing"
            raise BadFile(path, what, "put it there, or save it with its picture in Labelme.")
        relative = source.relative(path)
        mask = _mask(path, content, values, options.instances, found.counted)
        found.items.append(Item(case_name(relative), relative, image, mask))
    rest = [file for file in source.files if is_image(file) and file.resolve() not in used]
    if rest:
        found.notes.append(f"{counted(len(rest), 'picture')} without a file of Labelme left out")
    if lines := sum(shape.get("shape_type") in WITHOUT_AREA for shape in shapes):
        found.notes.append(f"points and lines, which have no area, left out: {lines}")
    return found


def _is_labelme(content: Document) -> bool:
    return isinstance(content.get("shapes"), list) and "imagePath" in content


def _require_form(path: Path, content: Document) -> None:
    if not is_size(content.get("imageHeight"), content.get("imageWidth")):
        what = "has no imageHeight and imageWidth of a picture"
        raise BadFile(path, what, "save it again in Labelme.")
    for shape in content["shapes"]:
        if not (isinstance(shape, dict) and isinstance(shape.get("label"), str) and shape["label"]):
            raise BadFile(path, "has a shape without a label", "give it one in Labelme.")
        if shape["label"] == IGNORED:
            what = f"has a shape '{IGNORED}'"
            raise BadFile(path, what, "label or remove the picture: no method ignores pixels.")


def _embedded(path: Path) -> Any:
    return lambda: str(read_json(path)["imageData"])


def _mask(
    path: Path, content: Document, values: dict[str, int], instances: bool, counted: Counter[str]
) -> LabelMap:
    size = (content["imageHeight"], content["imageWidth"])

    def draw() -> tuple[Array, None]:
        order = []
        ids: dict[Any, int] = {}
        for number, shape in enumerate(content["shapes"]):
            if shape.get("shape_type") in WITHOUT_AREA:
                continue
            try:
                pixels = np.flatnonzero(_pixels(shape, size))
            except UserError as error:
                what = f"shape {number + 1} ('{shape['label']}')"
                raise BadFile(path, what, str(error)) from None
            value = values[shape["label"]]
            if instances and value:
                group = shape.get("group_id")  # shapes of one group are one object
                value = ids.setdefault(
                    number if group is None else (str(group), value), len(ids) + 1
                )
            order.append((value, pixels))
        counted["pictures without an object, whose mask is empty"] += not order
        rule = "pixels of several shapes, which show the last one"
        return paint(order, size, rule, counted), None

    return LabelMap(draw)


def _pixels(shape: Document, size: tuple[int, int]) -> Array:
    """Return the pixels (H, W) of a shape that has an area.

    Raises:
        UserError: its type or its points cannot be used.
    """
    kind = shape.get("shape_type") or "polygon"  # files of old versions do not say
    least = 3 if kind in ("polygon", "oriented_rectangle") else 2
    corners = points(shape.get("points"), size, least)
    if kind in ("polygon", "oriented_rectangle"):
        return polygon(corners, size)
    if kind in ("rectangle", "circle") and len(corners) == 2:
        return (rectangle if kind == "rectangle" else circle)(corners, size)
    if kind == "mask" and len(corners) == 2:
        return _stored_mask(shape.get("mask"), corners, size)
    raise UserError(f"its type is {kind} with {len(corners)} points; draw it as a polygon.")


def _stored_mask(text: Any, corners: list[tuple[float, float]], size: tuple[int, int]) -> Array:
    """Return the pixels of a mask that is stored as PNG, from its first to its last corner."""
    from PIL import Image

    try:
        part = np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) > 0
    except (TypeError, ValueError, OSError):
        raise UserError("its mask is no picture; draw it again.") from None
    (left, top), (right, bottom) = [(int(x), int(y)) for x, y in corners]
    canvas = np.zeros(size, bool)
    place = canvas[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
    if part.shape != place.shape:
        raise UserError("its mask has another size than its corners; draw it again.")
    place[...] = part
    return canvas
