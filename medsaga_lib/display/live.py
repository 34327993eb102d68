"""Figures with controls: by JavaScript on the site, by ipywidgets where a kernel runs."""

import importlib.util
import json
from typing import Any, Literal

from medsaga_lib.display.page import figcaption
from medsaga_lib.display.style import distinct_colours


def interactive(
    kind: Literal["spectrum", "seeds", "threshold", "bytes"], numbers: dict[str, Any], caption: str
) -> None:
    """Show a figure with controls: on the site by JavaScript, where a kernel runs by ipywidgets.

    Args:
        kind: a function of `book/_static/figures.js`, and of `display.controls`.
        numbers: what the function takes, as JSON.
        caption: what the reader can change, and what to look for; a notebook that is opened
            without a kernel and without that file shows nothing else.
    """
    from IPython.display import display

    display(Interactive(kind, numbers, caption))


class Interactive:
    """A figure with controls, as a notebook stores it; arguments as in `interactive`."""

    def __init__(self, kind: str, numbers: dict[str, Any], caption: str) -> None:
        lines = [*numbers.get("curves", {}), *(row["method"] for row in numbers.get("rows", []))]
        names = list(dict.fromkeys(lines))
        given = {"colours": dict(zip(names, distinct_colours(names), strict=True))}
        self.kind, self.numbers, self.caption = kind, given | numbers, " ".join(caption.split())

    def __repr__(self) -> str:
        return self.caption

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        stored = json.dumps(self.numbers).replace("<", "\\u003c")  # so that no tag ends the script
        content = (
            f'<figure class="figure-live" data-kind="{self.kind}">'
            f"{figcaption(self.caption)}"
            f'<script type="application/json">{stored}</script></figure>'
        )
        bundle = {"text/html": content, "text/plain": self.caption}
        if has_kernel():
            from medsaga_lib.display.controls import Controls, of_kind

            widget = Controls(*of_kind(self.kind, self.numbers), self.caption)
            bundle = widget._repr_mimebundle_() | bundle
        return bundle


def has_kernel() -> bool:
    """Return whether this process is a notebook's kernel, and ipywidgets is installed."""
    from IPython import get_ipython

    shell: Any = get_ipython()  # type: ignore[no-untyped-call]
    return hasattr(shell, "kernel") and importlib.util.find_spec("ipywidgets") is not None
