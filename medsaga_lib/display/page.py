"""How a figure gets onto the page: with alt text, small, never wider than its column."""

import base64
import html
import io
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

CSS_DPI = 96  # a browser's pixels per inch: text then has the size that the style gives it
WEBP_QUALITY = 90  # our choice: the fine vessels of a lung are still there
PALETTE = 256  # colours of a PNG


def show(figure: Figure, alt: str = "") -> None:
    """Put a figure into the notebook as a picture with alt text, never wider than its column.

    Args:
        figure: of this module, or any other of matplotlib.
        alt: what a reader sees and what follows from it; otherwise the figure's own.

    Raises:
        ValueError: there is no alt text.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    display(Shown(figure, alt or str(figure.get_label())))
    plt.close(figure)  # pyplot's own figures would be drawn a second time


class Shown:
    """A figure as a notebook stores it: HTML, because MyST-NB gives a bare picture no alt text.

    The alt text is also the plain text of the output and stands in its metadata under `alt`.
    """

    def __init__(self, figure: Figure, alt: str) -> None:
        if not alt.strip():
            raise ValueError("a figure needs alt text: what does a reader see in it?")
        self.alt = " ".join(alt.split())
        self.mime, self.picture = encode(figure)
        self.width = round(figure.get_figwidth() * CSS_DPI)

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, str]]:
        source = f"data:{self.mime};base64,{base64.b64encode(self.picture).decode()}"
        tag = (
            f'<img alt="{html.escape(self.alt)}" src="{source}" width="{self.width}" '
            'style="max-width: 100%; height: auto">'
        )
        return {"text/html": tag, "text/plain": self.alt}, {"alt": self.alt}


def to_png(figure: Figure, alt: str = "") -> bytes:
    """A figure as a PNG file, exact, with its alt text as the description inside."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Description": alt or str(figure.get_label())})
    return file.getvalue()


def encode(figure: Figure) -> tuple[str, bytes]:
    """MIME type and bytes of a figure: WebP if it shows a picture, or else PNG with a palette.

    Two X-rays side by side are 50 kB, 360 kB as a PNG; curves are 17 instead of 70 kB.
    """
    written = io.BytesIO()
    picture = Image.open(io.BytesIO(to_png(figure))).convert("RGB")
    if any(axes.images for axes in figure.axes):
        picture.save(written, format="webp", quality=WEBP_QUALITY, method=6)
        return "image/webp", written.getvalue()
    reduced = picture.quantize(PALETTE, dither=Image.Dither.NONE)
    reduced.save(written, format="png", optimize=True)
    return "image/png", written.getvalue()
