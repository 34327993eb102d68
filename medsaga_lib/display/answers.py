"""Read the answers of readers in the checks of exercises; a wrong kind gets a sentence."""

from typing import Any


def as_number(name: str, answer: Any) -> float:
    """Return the answer `name` as a number.

    Raises:
        AssertionError: there is no answer, or it is not one number.
    """
    if answer is None or answer is Ellipsis:
        raise AssertionError(f"There is no number for {name} yet.")
    try:
        if isinstance(answer, str | bytes | bool):
            raise TypeError
        value = float(answer)
    except (TypeError, ValueError, RuntimeError):
        raise AssertionError(f"{name} is {answer!r}; it must be a number.") from None
    if value != value:
        raise AssertionError(f"{name} is NaN, which is not a number.")
    return value


def as_returned(call: str, answer: Any, like: Any) -> Any:
    """Return what the reader's function returned for `call`, if it can be compared with `like`.

    Raises:
        AssertionError: it is None, of another type or of another shape.
    """
    if answer is None:
        raise AssertionError(f"{call} returns None; does the function end with return?")
    if not isinstance(answer, type(like)):
        kinds = type(answer).__name__, type(like).__name__
        raise AssertionError(f"{call} returns {kinds[0]}; it must return {kinds[1]}.")
    shapes = [getattr(one, "shape", ()) for one in (answer, like)]
    if shapes[0] != shapes[1]:
        given, wanted = (tuple(shape) for shape in shapes)
        raise AssertionError(f"{call} has the shape {given}; it must be {wanted}.")
    return answer
