"""Read the source of every value of a recipe from the comments in the recipes' files.

A recipe's file is the only place of its values and their sources: `lr=0.005,  # section 4.1`. This
module follows each `replace` back to the recipe that it starts from, so that `medsaga methods NAME`
shows the whole method.
"""

import ast
import inspect
import io
import sys
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

from medsaga_lib import recipes
from medsaga_lib.models.lift import LiftName
from medsaga_lib.recipes.recipe import Recipe

# Fields that matter only where another field has one of these values
MEANT_FOR: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "start": ("head", ("classes",)),
    "text": ("head", ("names",)),
    "answer": ("head", ("points", "boxes")),
    "lift_decay": ("lift", tuple(kind for kind in get_args(LiftName) if kind != "none")),
}
OF_SAM = ("image_encoder", "start", "head", "answer", "text", "decoder")  # only for a SAM
OF_TRAINING = ("lr", "betas", "weight_decay", "warmup", "decay_power", "ce_weight", "dice_weight",
               "batch", "augmentation", "objective", "optimizer", "clip_norm")  # fmt: skip
TITLES = ("name", "title", "source")


class Value(NamedTuple):
    """A value of a recipe with its key for `--set`, its source and the recipe that sets it."""

    key: str
    value: Any
    source: str
    set_in: str  # a recipe's name, or "default"


class _Call(NamedTuple):
    """A recipe's assignment: the recipe that it replaces, and the comment of each value it sets."""

    base: str | None
    comments: dict[str, str]  # by key: "lr", "image_encoder.rank"; or "image_encoder", as a whole
    records: set[str]  # keys that are set to a new record


def values_of(recipe: Recipe) -> list[Value]:
    """Return every value that matters for this recipe, in the order of its fields."""
    found = []
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.name in TITLES or value is None or not _means_something(recipe, field.name):
            continue
        if is_dataclass(value) and fields(value):
            for part in fields(value):
                key = f"{field.name}.{part.name}"
                found.append(Value(key, getattr(value, part.name), *_source(recipe, key, value)))
        else:
            shown = type(value).__name__ if is_dataclass(value) else value
            found.append(Value(field.name, shown, *_source(recipe, field.name, recipe)))
    return found


def _means_something(recipe: Recipe, name: str) -> bool:
    if recipe.network is not None and name in OF_SAM:
        return False
    if not recipe.steps and name in OF_TRAINING:
        return False
    other, values = MEANT_FOR.get(name, ("", ()))
    return not other or getattr(recipe, other) in values


def _source(recipe: Recipe, key: str, record: Any) -> tuple[str, str]:
    """Return the source of a value and the recipe that sets it."""
    whole, _, part = key.partition(".")
    variable: str | None = recipe.name.upper()
    while variable is not None:
        call = _calls()[variable]
        if comment := call.comments.get(key) or call.comments.get(whole):
            return comment, variable.lower()
        if key in call.comments:
            return "", variable.lower()
        if part and whole in call.records:  # a new record, in which this part has its default
            break
        variable = call.base
    comments = (_field_comments(kind.__module__, kind.__name__) for kind in type(record).__mro__)
    of_field = (found[part or whole] for found in comments if (part or whole) in found)
    return next(of_field, ""), "default"


@cache
def _calls() -> dict[str, _Call]:
    """Return the assignment of each recipe, by the name of its variable."""
    found = {}
    for path in sorted(Path(recipes.__file__).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        comments = _comments(source)
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                call, (target,) = node.value, node.targets
                name = call.func.id if isinstance(call.func, ast.Name) else ""
                if isinstance(target, ast.Name) and name in ("Recipe", "replace"):
                    first = call.args[0] if call.args else None
                    base = first.id if isinstance(first, ast.Name) else None
                    found[target.id] = _Call(base, *_keywords(call, comments))
    return found


def _keywords(call: ast.Call, comments: dict[int, tuple[str, bool]]) -> tuple[dict, set]:
    """Return the comment of each keyword of a call, nested calls included, and the nested keys."""
    found, records = {}, set()
    for keyword in call.keywords:
        key, value = str(keyword.arg), keyword.value
        own = _comment_of(keyword.lineno, value.end_lineno or keyword.lineno, comments)
        if isinstance(value, ast.Call):
            records.add(key)
            inner, _ = _keywords(value, comments)
            single = keyword.lineno == value.end_lineno
            found[key] = own if single or not inner else ""
            for part, comment in inner.items():
                found[f"{key}.{part}"] = comment or found[key]
        else:
            found[key] = own
    return found, records


def _comment_of(first: int, last: int, comments: dict[int, tuple[str, bool]]) -> str:
    """Return the comment at the end of a statement's lines, or the comment block above it."""
    for line in range(first, last + 1):
        if line in comments and not comments[line][1]:
            return comments[line][0]
    above: list[str] = []
    while comments.get(first - 1, ("", False))[1]:
        first -= 1
        above.insert(0, comments[first][0])
    return " ".join(above)


def _comments(source: str) -> dict[int, tuple[str, bool]]:
    """Return each line's comment, and whether the line holds nothing else."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: (token.string.removeprefix("#").strip(), token.line.lstrip()[0] == "#")
        for token in tokens
        if token.type == tokenize.COMMENT
    }


@cache
def _field_comments(module: str, kind: str) -> dict[str, str]:
    """Return the comment of each field that a class of a module declares."""
    if module == "builtins":
        return {}
    return dict(_fields_in(kind, inspect.getsource(sys.modules[module])))


def _fields_in(name: str, source: str) -> Iterator[tuple[str, str]]:
    comments = _comments(source)
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    last = field.end_lineno or field.lineno
                    yield field.target.id, _comment_of(field.lineno, last, comments)
