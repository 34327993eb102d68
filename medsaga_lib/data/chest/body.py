"""The organs of a drawn patient and the density along each ray, in coordinates of the spine."""

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from medsaga_lib.data.chest.anatomy import Anatomy, Projection, View
from medsaga_lib.data.chest.profiles import Array, Random, between, cloud, shaft, tube
from medsaga_lib.data.chest.vessels import VESSEL_BLUR, branches, scatter

WIDTH = 320  # pixels
RIBS = 10
# outline of the heart in a PA image, from its centre, in units of its width and height
HEART = (
    (0.60, 0.30), (0.585, 0.42), (0.40, 0.47), (0.10, 0.50), (-0.20, 0.46), (-0.38, 0.34),
    (-0.44, 0.12), (-0.41, -0.12), (-0.31, -0.36), (-0.14, -0.52), (0.04, -0.53), (0.17, -0.42),
    (0.32, -0.20), (0.46, 0.02), (0.56, 0.17),
)  # fmt: skip
SIDES = (-1, 1)  # the patient's right and left


class Body:
    """A patient in coordinates of the spine: the organs and the density along each ray.

    Densities are relative: 1 is the soft tissue of the trunk on the longest ray.
    """

    def __init__(self, anatomy: Anatomy, view: View, projection: Projection) -> None:
        self.anatomy, self.view, self.projection = anatomy, view, projection
        self.shape = (round(WIDTH * view.height), WIDTH)
        self.y = ((np.arange(self.shape[0]) + 0.5) / self.shape[0])[:, None]
        self.x = ((np.arange(WIDTH) + 0.5) / WIDTH - 0.5)[None, :]
        self.domes = (anatomy.dome + view.breath, anatomy.dome + view.breath + anatomy.left_drop)
        self.angles = tuple(dome + anatomy.angle for dome in self.domes)
        self.lungs = [self._lung(side) for side in SIDES]
        self.heart_depth = self._heart()
        self.labels = self._labels()

    def wall(self, y: Array, side: int) -> Array:
        """Return the distance from the spine to the inside of the rib cage at height y."""
        a = self.anatomy
        bottom = self.angles[side > 0]
        t = np.clip((y - a.apex) / (bottom - a.apex), 0, 1)
        tip = 0.42 * a.cage
        return tip + (a.cage - tip) * np.sqrt(1 - (1 - t) ** 2.3) ** 1.15

    def floor(self, out: Array, side: int) -> Array:
        """Return y of the diaphragm, a dome, at the distance `out` from the spine."""
        a, dome = self.anatomy, self.domes[side > 0]
        top = 0.52 * a.cage
        beyond, before = np.clip((out - top) / (a.cage - top), 0, 1), np.clip(1 - out / top, 0, 1)
        return dome + a.angle * beyond**2.2 + 0.045 * before**2

    def _lung(self, side: int) -> Array:
        """Return the share of each pixel that a lung covers, 0 to 1; the heart is ignored."""
        a, out = self.anatomy, side * self.x
        t = np.clip((self.y - a.apex) / 0.17, 0, 1)
        tip = 0.42 * a.cage
        inner = tip - (tip - a.middle) * np.sqrt(1 - (1 - t) ** 2)
        sideways = np.minimum(out - inner, self.wall(self.y, side) - out) * WIDTH
        upright = np.minimum(self.floor(out, side) - self.y, self.y - a.apex) * self.shape[0]
        return np.clip(np.minimum(sideways, upright) + 0.5, 0, 1)

    def _heart(self) -> Array:
        """Return the depth of the heart along each ray, at most 1, inside its outline."""
        a = self.anatomy
        magnified = 1.1 if self.projection == "AP" else 1.0  # the heart is far from the detector
        wide = 2 * a.heart * a.cage * magnified
        tall = a.tall * (self.domes[0] - a.apex) + 0.02
        x = self.x - self.view.twist - 0.12 * wide
        y = self.y - self.domes[1] - 0.012 + 0.42 * tall
        points = np.array(HEART) * [wide, tall] + [0, 0.08 * a.lean * wide] * np.array(HEART)[:, :1]
        corners = np.arctan2(points[:, 1], points[:, 0])
        order = np.argsort(corners)
        corners, radii = corners[order], np.hypot(*points[order].T)
        outline = PchipInterpolator(  # one turn, with an overlap at both ends
            np.concatenate([corners[-2:] - 2 * np.pi, corners, corners[:2] + 2 * np.pi]),
            np.concatenate([radii[-2:], radii, radii[:2]]),
        )
        fine = np.linspace(-np.pi, np.pi, 361)
        radius = np.interp(np.arctan2(y, x), fine, outline(fine))
        return np.sqrt(np.clip(1 - (x**2 + y**2) / radius**2, 0, None))

    def _labels(self) -> Array:
        labels = np.zeros(self.shape, np.uint8)
        for label, lung in enumerate(self.lungs, start=1):
            labels[lung > 0.5] = label
        right, left = (self.floor(side * self.x, side) for side in SIDES)
        floor = right + (left - right) * np.clip(self.x / 0.12 + 0.5, 0, 1)
        below = self.y > floor + 0.012
        labels[(self.heart_depth > 0) & ~below] = 3
        return labels

    def density(self, random: Random) -> Array:
        """Return the total density along each ray (H, W)."""
        air = self._air(random)
        flesh = self._trunk() - air + self._organs()
        return flesh + self.anatomy.bone * self._bones(random)

    def _trunk(self) -> Array:
        """Return the density of the soft tissue of trunk, neck, shoulders and breasts."""
        a = self.anatomy
        neck, shoulder = 0.13, 0.62
        slope = np.clip((self.y + 0.03) / 0.13, 0, 1) ** 1.5
        side = neck + (shoulder - neck) * slope
        low = np.clip((self.y - 0.25) / 0.55, 0, 1)
        chest = a.cage + a.flesh + 0.015
        side = side - (side - chest) * low**2 * (3 - 2 * low)
        depth = np.sqrt(np.sqrt(np.clip(1 - (self.x / side) ** 2, 0, None)))
        level = 0.78 + 0.22 * np.clip(self.y / 0.3, 0, 1)
        return depth * level + self._breasts() + self._shell()

    def _shell(self) -> Array:
        """Return the density of the chest wall, which is high where rays are tangent to it."""
        total = np.zeros(self.shape)
        for side in SIDES:
            inner = self.wall(self.y, side)
            outer = inner + 0.020
            out = np.clip(side * self.x, 0, None)
            total += tube(out, outer) - tube(out, inner)
        return 0.30 * total * between(self.y, self.anatomy.apex + 0.03, self.angles[0] + 0.1)

    def _breasts(self) -> Array:
        a = self.anatomy
        total = np.zeros(self.shape)
        for side in SIDES:
            out = (side * self.x - 0.62 * a.cage) / (0.42 * a.cage)
            down = (self.y - self.domes[0] + 0.02) / np.where(self.y < self.domes[0], 0.22, 0.07)
            total += np.sqrt(np.clip(1 - out**2 - down**2, 0, None))
        return max(a.breast, 0) * total

    def _air(self, random: Random) -> Array:
        """Return the density that the air in lungs, airways and stomach removes."""
        a = self.anatomy
        air = np.zeros(self.shape)
        for side, lung in zip(SIDES, self.lungs, strict=True):
            out = side * self.x
            wall = np.clip(1 - (out / (self.wall(self.y, side) + 0.01)) ** 2, 0, None)
            high = 0.55 + 0.45 * np.clip((self.y - a.apex) / 0.28, 0, 1)
            depth = 0.60 * np.sqrt(wall) * high
            behind = np.clip((self.floor(out, side) - self.y) / 0.06, -1, 0)  # below the dome
            recess = 0.28 * np.exp(6 * behind) * (self.y < self.angles[side > 0])
            inside = (out > a.middle) & (wall > 0)
            edge = np.sqrt(np.clip((out - a.middle + 0.004) / 0.05, 0, 1))  # the pleura is oblique
            air += depth * edge * np.maximum(lung, recess * inside)
        air *= 1 + 0.04 * cloud(self.shape, random, 2) + 0.07 * cloud(self.shape, random, 16)
        air -= self._vessels(random)
        air *= 1 - 0.92 * np.sqrt(self.heart_depth)  # little lung is before or behind it
        if self.projection == "AP" or random.random() < 0.3:
            air *= 1 - self._opacities(random)
        return air + self._airways() + self._bubble()

    def _vessels(self, random: Random) -> Array:
        """Return the density of the arteries and veins that branch from each hilum."""
        layers = [np.zeros(self.shape) for _ in VESSEL_BLUR]
        root = np.zeros(self.shape)
        for side in SIDES:
            x, y = side * (self.anatomy.middle + 0.02), self._hilum(side)
            root += np.exp(-(((self.x - x) / 0.03) ** 2)) * np.exp(-(((self.y - y) / 0.05) ** 2))
            for points, widths in branches(random, side, (x, y), self.view.height):
                scatter(layers, points, widths)
        drawn = np.zeros(self.shape)
        for layer, blur in zip(layers, VESSEL_BLUR, strict=True):
            drawn += ndimage.gaussian_filter(layer, blur)
        inside = np.clip(self.lungs[0] + self.lungs[1], 0, 1)
        return inside * (np.minimum(drawn, 0.35) + 0.16 * root)

    def _hilum(self, side: int) -> float:
        return self.anatomy.apex + 0.45 * (self.domes[0] - self.anatomy.apex) - 0.018 * (side > 0)

    def _opacities(self, random: Random) -> Array:
        """Return opacities of the lung, 0 to 0.8, mostly in the lower part, as in pneumonia."""
        strength = random.uniform(0, 0.8) ** 1.5
        patches = np.clip(cloud(self.shape, random, 18) - 0.2, 0, None)
        low = np.clip((self.y - 0.25) / 0.4, 0, 1)
        return np.clip(strength * patches * low, 0, 0.8)

    def _airways(self) -> Array:
        """Return the air of the trachea and the main bronchi."""
        carina = self._hilum(1) - 0.035
        trachea = tube(self.x - self._spine_x() - 0.006, 0.020) * (self.y < carina)
        total = 0.16 * trachea
        for side, steep in ((-1, 1.5), (1, 0.95)):  # the right main bronchus is steeper
            out = side * (self.x - self._spine_x())
            down = self.y - carina
            branch = tube(out * steep - down, 0.018) * (down > 0) * (out < 0.075)
            total = total + 0.10 * branch
        return total

    def _bubble(self) -> Array:
        """Return the gas in the stomach, below the left dome."""
        x, y = (self.x - 0.5 * self.anatomy.cage) / 0.10, (self.y - self.domes[1] - 0.075) / 0.035
        gas = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
        return 0.2 * max(self.anatomy.bubble, 0) * gas

    def _organs(self) -> Array:
        """Return the density of heart, mediastinum, great vessels and organs of the abdomen."""
        a = self.anatomy
        heart = 0.13 * self.heart_depth
        cava = tube(self.x + a.middle - 0.010, 0.03) * between(self.y, 0.12, self._hilum(-1))
        knob_y = self._hilum(1) - 0.115
        size = 0.042 * a.knob
        round_ = ((self.x - a.middle - 0.010) / size) ** 2
        round_ = round_ + ((self.y - knob_y) * self.view.height / size) ** 2
        knob = np.sqrt(np.clip(1 - round_, 0, None))
        aorta = tube(self.x - a.middle + 0.006, 0.024) * between(self.y, knob_y, self.domes[1])
        centre = np.exp(-((self.x / (1.05 * a.middle)) ** 2)) * between(
            self.y, 0.06, self.domes[0], 0.2
        )
        below = between(self.y, self.domes[0] + 0.03, 2.0)
        return heart + 0.13 * cava + 0.22 * knob + 0.07 * aorta + 0.15 * centre + 0.06 * below

    def _bones(self, random: Random) -> Array:
        total = self._spine() + self._shoulders()
        for side in SIDES:
            for rib in range(RIBS):
                total += self._rib(rib, side)
            total += self._clavicle(side)
        return total

    def _spine_x(self) -> Array:
        return self.anatomy.curve * np.sin(2 * np.pi * self.y)

    def _spine(self) -> Array:
        """Return the density of the spine: vertebral bodies, end plates, discs and pedicles."""
        columns = slice(int(0.42 * WIDTH), int(0.58 * WIDTH))  # the spine is narrower than this
        x = self.x[:, columns] - self._spine_x()
        place = (self.y - self.anatomy.apex) / self._rib_gap() % 1 - 0.5  # 0: a body's centre
        body = np.clip((0.5 - np.abs(place)) / 0.08, 0, 1)
        plate = np.exp(-(((np.abs(place) - 0.40) / 0.05) ** 2))
        column = np.clip((0.044 - np.abs(x)) / 0.016, 0, 1)
        edge = np.exp(-(((np.abs(x) - 0.038) / 0.004) ** 2))
        pedicle = np.exp(-(((np.abs(x) - 0.026) / 0.007) ** 2) - ((place + 0.15) / 0.16) ** 2)
        process = np.exp(-((x / 0.007) ** 2) - ((place - 0.3) / 0.22) ** 2)
        total = np.zeros(self.shape)
        total[:, columns] = column * (0.03 + 0.03 * body + 0.045 * plate)
        total[:, columns] += 0.04 * edge + 0.05 * pedicle + 0.05 * process
        return total

    def _rib_gap(self) -> float:
        return (self.anatomy.dome - self.anatomy.apex) / (RIBS - 0.8)

    def _rib(self, number: int, side: int) -> Array:
        """Return the density of a rib: a tilted loop from the spine around to the front."""
        a = self.anatomy
        start = a.apex + (number - 0.35) * self._rib_gap()
        drop = a.rib_drop * (0.55 + 0.45 * min(number / 4, 1))
        reach = float(self.wall(np.array(start + drop / 2), side)) + 0.014
        if number == 0:
            reach *= 0.9
        out = np.clip(side * (self.x - self.view.twist * 0.3), 0, None)[0]
        sine = np.clip(out / reach, 0, 0.997)
        cosine = np.sqrt(1 - sine**2)
        on_ray = np.clip((reach - out) / 0.008, 0, 1) * (out > 0.02)
        thick = a.rib_width * (0.85 + 0.15 * cosine)
        grazing = np.minimum(1 / (cosine + 0.35), 1.6)
        total = np.zeros(self.shape)
        for front in (False, True):
            sign = -1 if front else 1
            y = start + drop * (1 - sign * cosine) / 2 - 0.035 * sine * (1 - sine) * (not front)
            steep = drop / 2 * sine / cosine / reach  # dy/dx
            half = thick * (1.25 if front else 1) * np.sqrt(1 + np.minimum(steep, 4) ** 2)
            weight = 0.13 * grazing * on_ray
            if front:  # the bone ends in cartilage, which is invisible
                weight = weight * 0.75 * np.clip((sine - 0.45) / 0.12, 0, 1)
            top = max(int((y - half).min() * self.shape[0]) - 1, 0)
            end = min(int((y + half).max() * self.shape[0]) + 2, self.shape[0])
            if end > top:
                total[top:end] += weight * shaft((self.y[top:end] - y) / half)
        return total

    def _clavicle(self, side: int) -> Array:
        a = self.anatomy
        lift = -0.02 if self.projection == "AP" else 0.02
        out = side * (self.x[0] - self.view.twist)
        t = np.clip((out - 0.035) / 0.37, 0, 1.2)
        y = a.apex + 0.085 + lift - 0.10 * t + 0.035 * np.sin(2 * np.pi * t * 0.9)
        half = 0.017 + 0.006 * (2 * t - 1) ** 2
        ends = np.clip((out - 0.03) / 0.01, 0, 1) * np.clip((0.42 - out) / 0.02, 0, 1)
        return 0.19 * ends * shaft((self.y - y) / half)

    def _shoulders(self) -> Array:
        """Return the density of scapulae and humeri; a PA view turns the scapulae off the lungs."""
        a = self.anatomy
        total = np.zeros(self.shape)
        rows = slice(0, int((a.apex + 0.35) * self.shape[0]))
        inner = a.cage * (0.80 if self.projection == "AP" else 0.98)
        down = self.y[rows] - a.apex
        t = np.clip((down - 0.02) / 0.30, 0, 1)
        height = between(down, 0.02, 0.32, 0.01)
        for side in SIDES:
            out = side * self.x
            border = out - (inner + 0.10 * t**2 - 0.02)
            blade = np.clip(border / 0.006, 0, 1)
            edge = np.clip(1 - np.abs(border - 0.005) / 0.008, 0, 1)
            far = np.clip((0.16 - 0.25 * t - border) / 0.02, 0, 1)
            total[rows] += far * height * 0.05 * (blade + edge)
            x, y = out - 0.475, (down - 0.075) * self.view.height
            head = np.sqrt(np.clip(1 - (x**2 + y**2) / 0.055**2, 0, None))
            below = shaft((x - 0.01) / 0.03) * (y > 0.02) * (head == 0)
            total[rows] += 0.12 * (head + below)
        return total
