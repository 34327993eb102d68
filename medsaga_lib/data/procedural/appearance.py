"""How a layout is bent, and what its labels look like: tones, textures, blur, noise, colour."""

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from medsaga_lib.data.procedural.canvas import BACKGROUND, GROUP, Canvas
from medsaga_lib.data.procedural.noise import smooth_noise


def deformation(rng: Generator, size: int) -> np.ndarray:
    """The flat index (S, S) of the pixel that is seen at each: bent, turned, mirrored, enlarged."""
    bend = rng.uniform(0, 0.05) * size
    knots = int(rng.integers(3, 7))
    turn, zoom = rng.normal(0, 0.2), rng.uniform(0.65, 1.0)
    centre = size / 2 + rng.uniform(-0.5, 0.5, 2) * (1 - zoom) * size
    across = np.linspace(-0.5, 0.5, size, dtype=np.float32) * size * zoom
    flip = rng.choice([-1.0, 1.0])
    x, y = across[None, :] * flip, across[:, None]
    source_x = centre[0] + x * np.cos(turn) - y * np.sin(turn)
    source_y = centre[1] + x * np.sin(turn) + y * np.cos(turn)
    source_x = source_x + bend * smooth_noise(rng, size, knots)
    source_y = source_y + bend * smooth_noise(rng, size, knots)
    column = np.clip(source_x + 0.5, 0, size - 1).astype(np.int32)
    row = np.clip(source_y + 0.5, 0, size - 1).astype(np.int32)
    return row * size + column


TEXTURES = (0.3, 0.3, 0.15, 0.1, 0.15)  # how often: gradient, clouds, fibres, stripes, spots


def _texture(rng: Generator, size: int) -> np.ndarray:
    """A field (size, size) float32 about 0, of about unit variance, in one of five styles."""
    style = rng.choice(5, p=TEXTURES)
    if style == 0:  # a gradient
        return smooth_noise(rng, size, int(rng.integers(2, 5)))
    if style == 1:  # clouds
        return smooth_noise(rng, size, int(rng.integers(8, 32)))
    if style == 2:  # fibres along an axis
        knots = [int(rng.integers(4, 10)), int(rng.integers(24, 80))]
        rng.shuffle(knots)
        return smooth_noise(rng, size, *knots)
    if style == 3:  # stripes, bent
        wave = 2 * np.pi / (size * rng.uniform(0.02, 0.12))
        angle = rng.uniform(0, np.pi)
        across = np.arange(size, dtype=np.float32) * np.float32(wave)
        phase = across * np.float32(np.cos(angle)) + across[:, None] * np.float32(np.sin(angle))
        return np.float32(1.4) * np.sin(phase + 2 * smooth_noise(rng, size, 4))
    spots = smooth_noise(rng, size, int(rng.integers(16, 64)))
    marked = 2 * (spots > rng.uniform(0.3, 1)).astype(np.float32)
    return marked - marked.mean()


def _tones(rng: Generator, canvas: Canvas, contrast: float, by_texture: bool) -> np.ndarray:
    """Brightness (L,) of each label: its kind's, which differs from its whole's by `contrast`."""
    of_kind: dict[int, float] = {}
    tones = np.empty(len(canvas.parents), np.float32)
    tones[0] = rng.uniform(0, 1)
    for this, (parent, kind) in enumerate(zip(canvas.parents, canvas.kinds, strict=True)):
        if this == BACKGROUND:
            continue
        if kind == GROUP:
            tones[this] = tones[parent]
            continue
        if kind not in of_kind:
            step = contrast * rng.uniform(0.5, 2.5) * rng.choice([-1, 1])
            tone = tones[parent] + step
            of_kind[kind] = tone if 0 <= tone <= 1 else tones[parent] - step
        tones[this] = of_kind[kind] + rng.normal(0, 0.1 * contrast)
    return np.full_like(tones, tones[0]) if by_texture else tones


def render(rng: Generator, canvas: Canvas, seen: np.ndarray, by_texture: bool) -> np.ndarray:
    """The picture (S, S, 3) uint8 of a canvas whose pixels are `seen` (S, S), flat indices."""
    labels = canvas.labels.take(seen)
    size = canvas.size
    contrast = float(np.exp(rng.uniform(np.log(0.06), np.log(0.6))))
    tones = _tones(rng, canvas, contrast * canvas.tone, by_texture)
    grey = tones[labels]
    if canvas.light is not None:
        light = canvas.light.take(seen)
        grey = grey + contrast / max(float(light.std()), 1e-3) * (light - light.mean())

    # Textures, in each kind with a strength of its own
    kinds = np.array(canvas.kinds)
    strength = contrast * canvas.tone * (1.0 if by_texture else max(0.0, rng.uniform(-0.2, 0.5)))
    for _ in range(2):
        of_kind = strength * rng.standard_normal(kinds.max() + 1).astype(np.float32)
        grey = grey + of_kind[kinds][labels] * _texture(rng, size)

    # Blur, with edges enhanced in some pictures
    if rng.random() < 0.8:
        soft = gaussian_filter(grey, size / 256 * rng.uniform(0.3, 2.0), truncate=2.5)
        grey = soft if rng.random() < 0.8 else soft + rng.uniform(0.5, 1.5) * (grey - soft)

    # What a scanner or a camera adds
    if rng.random() < 0.5:  # uneven light or coil sensitivity
        grey = grey * (
            1 + rng.uniform(0.05, 0.3) * smooth_noise(rng, size, int(rng.integers(2, 4)))
        )
    if rng.random() < 0.2:  # vignette
        across = np.linspace(-1, 1, size, dtype=np.float32) ** 2
        grey = grey * (1 - rng.uniform(0.1, 0.5) * (across + across[:, None]))
    grey = _noisy(rng, grey, contrast)
    if rng.random() < 0.3:
        grey = 1 - grey
    plain = by_texture or canvas.tone == 0
    return _coloured(rng, grey, np.zeros_like(kinds) if plain else kinds, labels)


def _noisy(rng: Generator, grey: np.ndarray, contrast: float) -> np.ndarray:
    """Gaussian, Poisson (its normal limit) or speckle (Rayleigh) noise, fine or coarse, or none."""
    kind = rng.integers(5)
    if kind == 0:
        return grey
    size = len(grey)
    level = np.float32(contrast * rng.uniform(0.05, 0.7))
    if kind == 1:
        return grey + level * smooth_noise(rng, size, int(size * rng.uniform(0.3, 0.6)))
    if kind == 2:
        speckle = np.sqrt(2 * rng.standard_exponential(grey.shape, np.float32))
        return grey * (1 + level * (gaussian_filter(speckle, rng.uniform(0.3, 1.0)) - 1.25))
    noise = level * rng.standard_normal(grey.shape, np.float32)
    return grey + noise * (np.sqrt(np.abs(grey)) if kind == 3 else 1)


def _coloured(
    rng: Generator, grey: np.ndarray, kinds: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """(S, S, 3) uint8: grey stretched to a random range, in 35 of 100 pictures with tints."""
    low, high = np.percentile(grey[::8, ::8], [1, 99])
    dark, bright = rng.uniform(0, 70), rng.uniform(150, 255)
    grey = (grey - low) * np.float32((bright - dark) / max(high - low, 1e-3)) + np.float32(dark)
    np.clip(grey, 0, 255, out=grey)
    if rng.random() > 0.35:
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    cast = rng.uniform(0.55, 1, 3)
    tints = cast * (1 + rng.uniform(0, 0.25) * rng.uniform(-1, 1, (kinds.max() + 1, 3)))
    tints = np.clip(tints / tints.max(axis=1, keepdims=True), 0, 1).astype(np.float32)
    return np.stack([grey * tint[kinds][labels] for tint in tints.T], axis=2).astype(np.uint8)
