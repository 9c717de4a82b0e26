"""Chest: body wall, lungs with vessels, diaphragm with the organs below it, bones, and tumours."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from hounsfield.phantom.canvas import Canvas, ellipse_distance
from hounsfield.phantom.fields import Float, Texture, Warp
from hounsfield.phantom.lesions import LungMap, Mimics, place_tumours
from hounsfield.phantom.mediastinum import Mediastinum
from hounsfield.phantom.ribs import Ribs
from hounsfield.phantom.shapes import Array, Outline, Polar, Track, Tubes, tree
from hounsfield.phantom.spine import Spine
from hounsfield.phantom.wall import Wall

_CAGE = (  # level, half width, front y, back y of the inner chest wall
    (0.9, 30, -40, 16),
    (1.3, 50, -50, 26),
    (2, 80, -68, 38),
    (3, 104, -86, 48),
    (4, 118, -101, 52),
    (6, 131, -119, 57),
    (8, 137, -126, 57),
    (10, 138, -124, 54),
    (12, 135, -115, 50),
    (14, 130, -110, 46),
)
_MUSCLE = (  # level, then thickness in mm outside the cage in the `DIRECTIONS`
    (0.5, 34, 78, 152, 104, 74, 58, 54),
    (1, 30, 70, 140, 96, 70, 56, 50),
    (2, 20, 48, 88, 68, 54, 46, 40),
    (3, 14, 33, 58, 54, 47, 38, 32),
    (4, 11, 27, 37, 46, 41, 33, 27),
    (6, 9, 19, 24, 34, 33, 28, 22),
    (8, 8, 11, 17, 24, 26, 25, 20),
    (10, 8, 10, 12, 16, 21, 25, 21),
    (13, 9, 11, 13, 19, 26, 28, 24),
)
_DEPTHS = (0, 0.15, 0.3, 0.45, 0.6, 0.72, 0.82, 0.92, 1)
"""Depths from the front to the back of the cage at which the lungs' inner borders are given."""
_RIGHT = (  # level, then distance in mm of the right lung's inner border from the midline
    (1.2, 46, 40, 32, 25, 20, 18, 18, 22, 26),
    (2, 46, 36, 29, 25, 21, 19, 20, 24, 28),
    (3, 30, 25, 28, 29, 22, 19, 20, 24, 30),
    (4, 12, 15, 29, 34, 25, 20, 20, 24, 30),
    (5, 5, 11, 31, 37, 27, 20, 20, 25, 32),
    (6, 4, 13, 35, 44, 28, 20, 20, 25, 32),
    (7, 4, 18, 40, 45, 29, 20, 20, 26, 33),
    (8, 6, 26, 45, 46, 30, 20, 20, 26, 33),
    (9, 10, 32, 49, 48, 33, 20, 20, 26, 33),
    (10, 16, 36, 49, 46, 34, 21, 20, 26, 33),
    (12, 22, 34, 40, 40, 32, 22, 22, 27, 33),
)
_LEFT = (
    (1.2, 46, 40, 32, 26, 22, 18, 18, 22, 26),
    (2, 46, 36, 30, 28, 25, 20, 20, 24, 28),
    (3, 28, 24, 28, 32, 32, 24, 20, 24, 30),
    (4, 10, 16, 30, 36, 36, 34, 24, 24, 30),
    (5, 5, 14, 33, 38, 40, 40, 30, 25, 32),
    (6, 4, 22, 44, 50, 42, 39, 30, 26, 32),
    (7, 4, 40, 62, 60, 44, 38, 29, 26, 33),
    (8, 8, 58, 80, 73, 46, 38, 28, 26, 33),
    (9, 12, 66, 88, 78, 46, 37, 27, 26, 33),
    (10, 18, 62, 82, 68, 44, 35, 26, 26, 33),
    (12, 22, 40, 50, 48, 38, 30, 25, 27, 33),
)


class Chest:
    """One patient's chest with one or two tumours."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.spine = Spine(rng)
        self.warp = Warp(rng, 2.6)
        self.cage = Outline(_CAGE, -30.0, 2.35)
        breast = float(rng.uniform(18, 48)) if rng.random() < 0.45 else 0.0
        self.wall = Wall(rng, self.cage, _MUSCLE, fat=float(rng.uniform(5, 26)), breast=breast)
        self.sex, self.age = "F" if breast else "M", int(rng.integers(38, 88))
        self.front, self.back, self.half_width = self.wall.reach((3.0, 6.4, 10.0))
        self._borders = tuple(Track([row[0] for row in rows], [row[1:] for row in rows]) for rows in (_RIGHT, _LEFT))
        self._ribs = Ribs.grow(rng, self.spine, self.cage, 1, 11)
        self._contrast = bool(rng.random() < 0.65)
        self._blood = float(rng.uniform(130, 260)) if self._contrast else float(rng.uniform(36, 46))
        self._muscle = float(rng.uniform(46, 62))
        right = self.spine.z(float(rng.uniform(8.6, 9.6)))
        self._domes_at = (right, right - float(rng.uniform(6, 20)))
        self._mediastinum = Mediastinum(rng, self._contrast, self._blood)
        self._texture = Texture(rng, 7.0)
        self._lung = float(rng.uniform(-880, -820))
        self._dependent = float(rng.uniform(20, 90))
        self._phase = rng.uniform(0, 2 * np.pi, 5)
        lungs = self._map_lungs(8.0)
        self._arteries, self._bronchi = self._grow(rng, lungs)
        self._mimics = Mimics(rng, lungs, self.cage, right)
        heights = right - 40, self.spine.z(3.0)
        self.tumours = place_tumours(rng, lungs, self._to_wall, heights, self._contrast)

    def extent(self, rng: np.random.Generator) -> tuple[float, float]:
        return self.spine.z(float(rng.uniform(11.4, 13.2))), self.spine.z(float(rng.uniform(0.2, 1.0)))

    def labelled(self, z: float) -> bool:
        return any(tumour.reaches(z) for tumour in self.tumours)

    def paint(self, canvas: Canvas) -> Float:
        level = float(self.spine.level(canvas.z))
        polar = Polar(canvas, self.cage.centre)
        inner = polar.distance(self.cage.radius(polar.angles, level))
        self.wall.paint(canvas, polar, level, self._muscle)
        cavity = canvas.coverage(inner)
        canvas.blend(cavity, -98)
        lung = canvas.coverage(self._lungs(canvas, inner, level))
        self._below_diaphragm(canvas, cavity)
        self._mediastinum.paint(canvas, level)
        self._fill_lungs(canvas, lung, polar, level)
        tumour = np.zeros(canvas.shape, np.float32)
        wall = canvas.coverage(inner - 3.0)
        for item in self.tumours:
            item.paint(canvas, wall, tumour)
        self._shoulders(canvas, level)
        self.spine.paint(canvas)
        self._ribs.paint(canvas, self.spine.bone)
        self._sternum(canvas, level)
        return tumour

    def _lungs(self, canvas: Canvas, inner: Float, level: float) -> Float:
        """Signed distance in mm to the lungs' surface; `inner` is that to the cage."""
        if level < 0.95:
            return np.full_like(inner, 5)
        _, front, back = self.cage.bounds(level)
        fine = np.linspace(0, 1, 128)
        at = np.clip((canvas.y - np.float32(front)) / np.float32(back - front) * 127, 0, 126.99)
        low = at.astype(np.int32)
        part = at - low
        right, left = (
            row[low] * (1 - part) + row[low + 1] * part
            for row in (PchipInterpolator(_DEPTHS, track(level))(fine).astype(np.float32) for track in self._borders)
        )
        distance = np.maximum(inner, np.where(canvas.x < 0, canvas.x + right, left - canvas.x))
        for dome in self._domes(canvas.z):
            if dome is not None:
                distance = np.maximum(distance, -ellipse_distance(canvas.x, canvas.y, *dome))
        return np.asarray(distance, np.float32)

    def _domes(self, z: float) -> list[tuple[tuple[float, float], tuple[float, float]] | None]:
        """Ellipses of the abdomen under the right and the left diaphragm at height z."""
        domes: list[tuple[tuple[float, float], tuple[float, float]] | None] = []
        for apex, centre in zip(self._domes_at, ((-70.0, -42.0), (66.0, -48.0)), strict=True):
            share = (apex - z) / 78
            size = float(np.sqrt(max(share, 0)))
            domes.append(None if share <= 0 else (centre, (74 * size + 4 * share, 92 * size)))
        return domes

    def _below_diaphragm(self, canvas: Canvas, cavity: Float) -> None:
        right, left = self._domes(canvas.z)
        liver, spleen = (112.0, 120.0) if self._contrast else (58.0, 48.0)
        if right is not None:
            centre, (a, b) = right
            canvas.ellipse(centre, (a - 1.5, b - 1.5), liver, within=cavity)
            for i in range(5):
                turn, far = self._phase[i], 0.25 + 0.12 * i
                x, y = centre[0] + a * far * np.cos(turn + canvas.z / 60), centre[1] + b * far * np.sin(turn)
                if a > 25:
                    canvas.ellipse((x, y), (4.0, 3.0), liver + (30 if self._contrast else -14), angle=turn, soft=2)
            deep = self._domes_at[0] - canvas.z
            canvas.ellipse((-5, -70), (min(deep, 50) * 1.3, min(deep, 40) * 0.9), liver, within=cavity)
        if left is not None:
            centre, (a, b) = left
            deep = self._domes_at[1] - canvas.z
            size = (min(deep * 0.8, 32), min(deep, 42))
            canvas.ellipse((centre[0] + 22, centre[1] + 52), size, spleen, within=cavity)
            stomach = (centre[0] - 6, centre[1] - 6)
            size = (min(deep, 42.0), min(deep * 0.9, 40.0))
            canvas.ellipse(stomach, size, 45, within=cavity)
            inside = canvas.ellipse(stomach, (size[0] - 4, size[1] - 4), 18, within=cavity)
            if inside is not None:
                box, alpha = inside
                canvas.blend(alpha * canvas.coverage(canvas.y[box] - np.float32(stomach[1] - 14)), -980, box)

    def _fill_lungs(self, canvas: Canvas, lung: Float, polar: Polar, level: float) -> None:
        """Parenchyma, denser towards the back, with arteries, bronchi and what resembles a tumour."""
        tissue = self._lung + 13 * self._texture(canvas.x, canvas.y, canvas.z)
        tissue += np.float32(self._dependent) * np.clip((canvas.y + 20) / 75, 0, 1) ** 2
        canvas.blend(lung, tissue)
        canvas.blend(self._arteries.coverage(canvas) * lung, self._blood * 0.8 if self._contrast else 38)
        walls = Tubes(self._bronchi.points, self._bronchi.radii + 0.9)
        canvas.blend(walls.coverage(canvas) * lung, -60)
        canvas.blend(self._bronchi.coverage(canvas) * lung, -960)
        self._mimics.paint(canvas, polar, level, lung)

    def _shoulders(self, canvas: Canvas, level: float) -> None:
        """Scapulae, heads of the humeri (the arms are raised) and clavicles."""
        bone = self.spine.bone
        for sign in (-1, 1):
            if 1.6 < level < 8.2:
                k = (level - 1.6) / 6.6
                near_spine = (sign * (72 + 16 * np.sin(np.pi * k)), 62 - 6 * k)
                middle = (sign * (108 + 14 * k), 52 - 8 * k)
                outer = (sign * (142 - 16 * k), 22 + 12 * k)
                width = 3.4 * float(np.sqrt(np.sin(np.pi * np.clip(k, 0.02, 0.98))))
                line = [near_spine, middle, outer] if level < 6 else [near_spine, middle]
                canvas.curve(line, [width * 0.8, width * 0.8, width * 1.6][: len(line)], bone.compact * 0.9)
                if level < 4.2:
                    canvas.curve([middle, (sign * 112, 74)], [2.6, 3.4], bone.compact * 0.9)
            if level < 1.9:
                r = 21 * float(np.sqrt(np.clip(1.9 - level, 0, 1)))
                canvas.ellipse((sign * 152, 6), (r, r), bone.compact)
                canvas.ellipse((sign * 152, 6), (r - 3, r - 3), bone.spongy)
            if level < 2.6:
                x = 30 + 90 * np.clip(2.6 - level, 0, 1.6) / 1.6
                canvas.capsule((sign * (x - 14), -74), (sign * (x + 14), -68), (6.5, 5.5), bone.compact)
                canvas.capsule((sign * (x - 14), -74), (sign * (x + 14), -68), (4.0, 3.3), bone.spongy)

    def _sternum(self, canvas: Canvas, level: float) -> None:
        if not 2.3 < level < 9.6:
            return
        y = self.cage.bounds(level)[1] - 6
        half = float(np.interp(level, [2.3, 3, 4.2, 5, 8, 9, 9.6], [20, 27, 16, 15, 18, 9, 3]))
        canvas.ellipse((0, y), (half, 6.2), self.spine.bone.compact * 0.8, power=2.8)
        canvas.ellipse((0, y), (half - 1.8, 4.4), self.spine.bone.spongy * 0.8, power=2.8)

    def _map_lungs(self, step: float) -> LungMap:
        """The lungs on a grid of `step` mm."""
        heights = np.arange(self.spine.z(12.2), self.spine.z(0.9), step)
        size = int(320 / step)
        inside = np.zeros((len(heights), size, size), bool)
        for i, z in enumerate(heights):
            canvas = Canvas(size, step, float(z), step)
            level = float(self.spine.level(z))
            polar = Polar(canvas, self.cage.centre)
            inner = polar.distance(self.cage.radius(polar.angles, level))
            inside[i] = self._lungs(canvas, inner, level) < -1
        depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=step)[1:-1, 1:-1, 1:-1]
        index = np.argwhere(inside)
        axis = (np.arange(size) - (size - 1) / 2) * step
        return LungMap(np.stack([axis[index[:, 2]], axis[index[:, 1]], heights[index[:, 0]]], axis=1), depth[inside])

    def _grow(self, rng: np.random.Generator, lungs: LungMap) -> tuple[Tubes, Tubes]:
        """Pulmonary arteries and veins, and bronchi, from the hila to goals all over the lungs."""
        vessels, bronchi = [], []
        inside = lungs.points[lungs.depth > 8]
        for sign in (-1, 1):
            side = inside[np.sign(inside[:, 0]) == sign]
            for kind in range(2):
                goals = side[rng.choice(len(side), 330)] + rng.uniform(-4, 4, (330, 3))
                root = np.array([sign * 44.0, -44 + 8 * kind, self.spine.z(5.7 + 0.9 * kind)])
                vessels.append(tree(rng, root, goals, 0.62, bend=0.05))
            root = np.array([sign * 40.0, -37.0, self.spine.z(6.2)])
            bronchi.append(tree(rng, root, side[rng.choice(len(side), 36)], 1.0, exponent=2.9))
        arteries, airways = (
            Tubes.of([tubes.points for tubes in group], [tubes.radii for tubes in group])
            for group in (vessels, bronchi)
        )
        return arteries, airways

    def _to_wall(self, point: Array, inside: float) -> Array:
        """The point on the same ray from the cage's axis, `inside` mm within the chest wall."""
        angle = np.arctan2(point[0], self.cage.centre - point[1])
        radius = float(self.cage.radius(np.array(angle), float(self.spine.level(point[2])))) - inside
        return np.array([radius * np.sin(angle), self.cage.centre - radius * np.cos(angle), point[2]])
