"""COCO's JSON of object instances: polygons and RLE, over pictures in any folder beside it.

Source: https://cocodataset.org/#format-data. A picture without objects gets an empty mask. A pixel
of several objects gets the label of the smallest one, and crowds lie below all objects; this order
is our choice, because the format has none. Where there are several JSON files, the words train, val
and test in their names or folders give the splits.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from medsaga_lib.data.bitmaps import ORIENTATION, TURNS
from medsaga_lib.data.importing.found import Array, Copied, Found, Item, LabelMap, Options
from medsaga_lib.data.importing.labels import values_of_names
from medsaga_lib.data.importing.shapes import coco_mask, is_size, paint
from medsaga_lib.data.importing.source import Source, case_name, split_of
from medsaga_lib.data.problems import BadFile, listed
from medsaga_lib.errors import UserError

LOOKED_FOR = "a JSON file with images, annotations and categories"
SHOWN = 80  # our choice: a message shows so many characters of an annotation
Document = dict[str, Any]


def recognises(source: Source) -> bool:
    """Return whether a JSON file of the source has pictures and categories."""
    return any(_is_instances(content) for content in source.documents.values())


def find(source: Source, options: Options) -> Found:
    """List the pictures of all JSON files of object instances.

    Raises:
        UserError: a file is damaged, pictures are missing, or two files list the same picture.
    """
    documents = source.documents_with(_is_instances, "COCO instances", LOOKED_FOR)
    if options.channel is not None:
        raise UserError("COCO has one picture for each image; omit --channel.")
    for path, content in documents.items():
        _require_form(path, content)
    names = _used_categories(documents)
    values = values_of_names(names, options)
    found = Found(
        items=[],
        labels={} if options.instances else {values[key]: name for key, name in names.items()},
        licence=_licence(documents),
        citation=_citation(documents),
    )
    splits = {path: _split(source, path) for path in documents}
    if len(set(splits.values())) == 1:
        splits = dict.fromkeys(documents, None)  # the only file, or no word tells them apart
    pictures: dict[str, list[Path]] = defaultdict(list)
    for file in source.files:
        pictures[file.name].append(file)
    first: dict[Path, Path] = {}
    for path, content in documents.items():
        for entry, objects in _entries(path, content):
            picture = _picture(source, path, str(entry["file_name"]), pictures, splits[path])
            _require_upright(picture, (entry["width"], entry["height"]))
            if first.setdefault(picture, path) != path:
                what = f"lists {picture.name}, as {first[picture].name} does"
                raise BadFile(path, what, "give one of the JSON files as SOURCE.")
            found.items.append(
                Item(
                    case_name(PurePath(str(entry["file_name"]).replace("\\", "/"))),
                    source.relative(picture),
                    Copied(picture),
                    _mask(path, entry, objects, values, options.instances, found.counted),
                    splits[path],
                )
            )
    return found


def _is_instances(content: Document) -> bool:
    return all(isinstance(content.get(key), list) for key in ("images", "categories"))


def _require_form(path: Path, content: Document) -> None:
    """Raise BadFile if an entry of a document lacks what names it or its picture."""
    if not isinstance(content.get("annotations", []), list):
        raise BadFile(path, "has `annotations` that are no list", "export it again.")
    for entry in content["categories"]:
        if not (isinstance(entry, dict) and isinstance(entry.get("id"), int)):
            raise BadFile(path, f"has the category {entry!r}", "give it an id and a name.")
    for entry in content["images"]:
        fits = isinstance(entry, dict) and is_size(entry.get("height"), entry.get("width"))
        if not (fits and isinstance(entry.get("id"), int | str) and entry.get("file_name")):
            raise BadFile(path, f"has the image {entry!r}", "give it id, file_name, height, width.")
    for one in content.get("annotations", ()):
        keys = ("image_id", "category_id")
        if not (isinstance(one, dict) and all(isinstance(one.get(k), int | str) for k in keys)):
            what = f"has the annotation {str(one)[:SHOWN]}"
            raise BadFile(path, what, "give it image_id and category_id.")


def _used_categories(documents: dict[Path, Document]) -> dict[int, str]:
    """Return the names of the categories that have objects; all of them if none has one.

    Raises:
        BadFile: a category has another name than in another file.
    """
    names: dict[int, str] = {}
    used = {
        one.get("category_id")
        for content in documents.values()
        for one in content.get("annotations") or ()
    }
    for path, content in documents.items():
        for entry in content["categories"]:
            name = str(entry.get("name", "")).strip() or f"category {entry['id']}"
            if names.setdefault(entry["id"], name) != name:
                what = f"calls category {entry['id']} '{name}', another file '{names[entry['id']]}'"
                raise BadFile(path, what, "give one of the JSON files as SOURCE.")
    return {key: name for key, name in names.items() if key in used} or names


def _entries(path: Path, content: Document) -> list[tuple[Document, list[Document] | None]]:
    """Return each image with its annotations; None if the file annotates nothing (COCO's tests).

    Raises:
        BadFile: an image occurs twice, or an annotation belongs to none.
    """
    by_id: dict[Any, list[Document]] = {}
    annotations = content.get("annotations")
    for entry in content["images"]:
        if entry["id"] in by_id:
            raise BadFile(path, f"has the image {entry['id']} twice", "give each its own id.")
        by_id[entry["id"]] = []
    for one in annotations or ():
        if one["image_id"] not in by_id:
            what = f"has the annotation {one.get('id')} of an image that it does not list"
            raise BadFile(path, what, "add the image, or remove the annotation.")
        by_id[one["image_id"]].append(one)
    return [(e, None if annotations is None else by_id[e["id"]]) for e in content["images"]]


def _picture(
    source: Source, path: Path, name: str, pictures: dict[str, list[Path]], split: str | None
) -> Path:
    """Return the file that a `file_name` means: below the JSON file's folder, or where it is.

    Raises:
        BadFile: there is no such file, or there are several.
    """
    wanted = PurePath(name.replace("\\", "/"))
    beside = path.parent / wanted
    if beside in pictures.get(wanted.name, ()):
        return beside
    found = [
        p for p in pictures.get(wanted.name, ()) if p.parts[-len(wanted.parts) :] == wanted.parts
    ]
    if len(found) > 1:
        found = [p for p in found if split and split in map(_split_word, source.relative(p).parts)]
    if len(found) != 1:
        what = f"lists the picture '{name}', which is " + ("not unique" if found else "missing")
        raise BadFile(path, what, "put the pictures beside the file, or write their folders.")
    return found[0]


def _require_upright(picture: Path, size: tuple[int, int]) -> None:
    """Raise BadFile if a JPEG is to be turned and its annotations may not be.

    The reader turns it. Programs for annotation differ, and only the size (width, height) can tell.
    """
    if picture.suffix.lower() not in (".jpg", ".jpeg"):
        return
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(picture) as image:
            turn = image.getexif().get(ORIENTATION, 1)
            swapped = bool(TURNS.get(turn, TURNS[1])[2])
            told = swapped and image.size[::-1] == size != image.size
    except (UnidentifiedImageError, OSError) as error:
        raise BadFile(picture, f"cannot be read ({error})", "copy it again.") from None
    if turn in TURNS and turn != 1 and not told:
        what = f"is to be turned (orientation {turn}), and its annotations may be turned or not"
        raise BadFile(picture, what, "save picture and annotations upright, without orientation.")


def _mask(
    path: Path,
    entry: Document,
    objects: list[Document] | None,
    values: dict[int, int],
    instances: bool,
    counted: Counter[str],
) -> LabelMap | None:
    if objects is None:
        return None
    shape = (entry["height"], entry["width"])

    def draw() -> tuple[Array, None]:
        drawn = []
        for one in objects:
            if one["category_id"] not in values:
                what = f"has the annotation {one.get('id')} of an unknown category"
                raise BadFile(path, what, "list the category.")
            try:
                pixels = np.flatnonzero(coco_mask(one.get("segmentation"), shape))
            except UserError as error:
                raise BadFile(path, f"annotation {one.get('id')}", str(error)) from None
            drawn.append((not one.get("iscrowd"), -len(pixels), values[one["category_id"]], pixels))
        counted["crowds, which lie below the other objects"] += sum(not row[0] for row in drawn)
        counted["pictures without an object, whose mask is empty"] += not drawn
        drawn.sort(key=lambda row: row[:2])
        order = [
            (number if instances else value, pixels)
            for number, (_, _, value, pixels) in enumerate(drawn, start=1)
        ]
        rule = "pixels of several objects, which show the smallest"
        return paint(order, shape, rule, counted), None

    return LabelMap(draw)


def _split(source: Source, path: Path) -> str | None:
    """Return the split that the words of a JSON file's path give, if they give one."""
    found = {s for part in source.relative(path).with_suffix("").parts if (s := _split_word(part))}
    return found.pop() if len(found) == 1 else None


def _split_word(name: str) -> str | None:
    """Return the split of a name such as `instances_train2017`."""
    return next(
        (s for word in re.findall(r"[a-z]+", name.casefold()) if (s := split_of(word))), None
    )


def _licence(documents: dict[Path, Document]) -> str:
    found = [
        str(entry["name"])
        for content in documents.values()
        if isinstance(content.get("licenses"), list)
        for entry in content["licenses"]
        if isinstance(entry, dict) and entry.get("name")
    ]
    return listed(dict.fromkeys(found)) if found else ""


def _citation(documents: dict[Path, Document]) -> str:
    info: Document = next(
        (c["info"] for c in documents.values() if isinstance(c.get("info"), dict)), {}
    )
    said = [info.get(key) for key in ("contributor", "description", "year", "url")]
    return ", ".join(str(part) for part in said if part)
