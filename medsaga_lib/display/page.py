"""Puts figures into a notebook page: with alt text, in a small file, within the column width."""

import base64
import html
import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

CSS_DPI = 96  # pixels per inch in a browser, so that text has the size of the style
WEBP_QUALITY = 90  # our choice: the fine vessels of a lung stay visible
SOFT_SIDE = 128  # pixels of a soft mask in a page; our choice
PALETTE = 256  # number of colours in a PNG with a palette


def show(figure: Figure, alt: str = "", caption: str = "") -> None:
    """Show a figure in the notebook with alt text and a caption, at most as wide as the column.

    Args:
        figure: a figure of this package, or any other figure of matplotlib.
        alt: what a reader sees and what follows from it; default: the label of the figure.
        caption: a sentence below the figure; the book puts "Figure 5.2." before it.

    Raises:
        ValueError: there is no alt text.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    display(Shown(figure, alt, caption))
    plt.close(figure)  # otherwise a figure of pyplot is drawn again


class Shown:
    """A figure as a notebook stores it: as HTML, because MyST-NB gives images no alt text.

    The alt text, by default the label of the figure, is also the plain text of the output and its
    metadata `alt`.
    """

    def __init__(self, figure: Figure, alt: str = "", caption: str = "") -> None:
        alt = alt or str(figure.get_label())
        if not alt.strip():
            raise ValueError("The figure has no alt text; describe in `alt` what a reader sees.")
        self.alt, self.caption = (" ".join(text.split()) for text in (alt, caption))
        self.mime, self.picture = encode(figure)
        self.width = round(figure.get_figwidth() * CSS_DPI)

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, str]]:
        return {"text/html": self.to_html(), "text/plain": self.alt}, {"alt": self.alt}

    def to_html(self) -> str:
        """Return the figure with its alt text and its caption."""
        source = f"data:{self.mime};base64,{base64.b64encode(self.picture).decode()}"
        tag = (
            f'<img alt="{html.escape(self.alt)}" src="{source}" width="{self.width}" '
            'style="max-width: 100%; height: auto">'
        )
        if self.caption:
            tag = f'<figure style="margin: 0">{tag}{figcaption(self.caption)}</figure>'
        return tag


def figcaption(caption: str) -> str:
    """Return a caption as HTML; the build puts the number of the figure into its beginning."""
    return f"<figcaption>{html.escape(caption)}</figcaption>"


def soft_mask(
    pixels: NDArray[np.floating], truth: NDArray[np.bool_], probability: NDArray[np.floating]
) -> dict[str, Any]:
    """Return an image with a soft mask, as the figure "threshold" of `interactive` takes it.

    It is the part around the truth, with a margin of half its longer side. It is stored with at
    most `SOFT_SIDE` pixels on a side: of a larger part, every second (third, ...) pixel.

    Args:
        pixels: (H, W) or (H, W, 3) in [0, 1].
        truth: (H, W), not empty.
        probability: (H, W) in [0, 1]; stored in steps of 1/255.
    """
    ends = [(at.min(), at.max() + 1) for at in np.nonzero(truth)]
    margin = max(last - first for first, last in ends) // 2
    ends = [
        (max(0, first - margin), min(last + margin, length))
        for (first, last), length in zip(ends, truth.shape, strict=True)
    ]
    step = -(-max(last - first for first, last in ends) // SOFT_SIDE)
    part = tuple(slice(first, last, step) for first, last in ends)
    height, width = truth[part].shape
    picture, shades = (np.round(255 * of[part]).astype(np.uint8) for of in (pixels, probability))
    written = io.BytesIO()
    Image.fromarray(picture).convert("RGB").save(written, "webp", quality=WEBP_QUALITY, method=6)
    return {
        "width": width,
        "height": height,
        "picture": f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}",
        "probability": base64.b64encode(shades.tobytes()).decode(),
        "truth": base64.b64encode(truth[part].astype(np.uint8).tobytes()).decode(),
    }


def to_png(figure: Figure, alt: str = "") -> bytes:
    """Return a figure as a lossless PNG file with its alt text as the description."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Description": alt or str(figure.get_label())})
    return file.getvalue()


def encode(figure: Figure) -> tuple[str, bytes]:
    """Return the MIME type and bytes: WebP for a figure with images, else PNG with a palette.

    A pair of X-rays needs 50 kB instead of 360 kB as a PNG; curves need 17 kB instead of 70 kB.
    """
    written = io.BytesIO()
    picture = Image.open(io.BytesIO(to_png(figure))).convert("RGB")
    if any(axes.images for axes in figure.axes):
        picture.save(written, format="webp", quality=WEBP_QUALITY, method=6)
        return "image/webp", written.getvalue()
    reduced = picture.quantize(PALETTE, dither=Image.Dither.NONE)
    reduced.save(written, format="png", optimize=True)
    return "image/png", written.getvalue()
