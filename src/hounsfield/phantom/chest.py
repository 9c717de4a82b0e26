"""Chest: body wall, lungs with vessels, mediastinum, diaphragm with the organs below it, and what resembles a tumour."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hounsfield.phantom.canvas import Canvas, Float, Texture, Warp, ellipse_distance
from hounsfield.phantom.shapes import Array, Outline, Polar, Track, Tubes, tree
from hounsfield.phantom.spine import Spine, paint_ribs, ribs
from hounsfield.phantom.tumour import Tumour
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
    """One patient's chest with one or two tumours (about half of all tumours on the chest wall)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.spine = Spine(rng)
        self.warp = Warp(rng, 2.6)
        self.cage = Outline(_CAGE, -30.0, 2.35)
        breast = float(rng.uniform(18, 48)) if rng.random() < 0.45 else 0.0
        self.wall = Wall(rng, self.cage, _MUSCLE, fat=float(rng.uniform(5, 26)), breast=breast)
        self.front, self.back, self.half_width = self.wall.reach((3.0, 6.4, 10.0))
        self._right, self._left = (
            Track([row[0] for row in rows], [row[1:] for row in rows]) for rows in (_RIGHT, _LEFT)
        )
        self._ribs = ribs(self.spine, self.cage, rng, 1, 11)
        self._contrast = bool(rng.random() < 0.65)
        self._blood = float(rng.uniform(130, 260)) if self._contrast else float(rng.uniform(36, 46))
        self._muscle = float(rng.uniform(46, 62))
        self._texture = Texture(rng, 7.0)
        self._lung = float(rng.uniform(-880, -820))
        self._apex = (self.spine.z(float(rng.uniform(8.6, 9.6))), 0.0)
        self._apex = (self._apex[0], self._apex[0] - float(rng.uniform(6, 20)))
        self._heart = float(rng.uniform(0.88, 1.12))
        self._effusion = float(rng.uniform(6, 16)) if rng.random() < 0.2 else 0.0
        self._effusion_side = int(rng.choice([-1, 1]))
        self._dependent = float(rng.uniform(20, 90))
        self._phase = rng.uniform(0, 2 * np.pi, 12)
        voxels = self._lung_map(8.0)
        self._vessels = self._grow(rng, voxels)
        self.tumours = self._seed_tumours(rng, voxels)
        self._nodules = self._seed_nodules(rng, voxels)
        self._bands = self._seed_bands(rng)
        self._plaques = [
            (float(rng.uniform(0.2, 0.85) * np.pi * rng.choice([-1, 1])), float(rng.uniform(3.5, 10)))
            + (float(rng.uniform(0.12, 0.35)), float(rng.uniform(3, 7)))
            for _ in range(int(rng.integers(0, 4)))
        ]

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
        lung, sides = self._lungs(canvas, inner, level)
        self._below_diaphragm(canvas, cavity)
        self._mediastinum(canvas, level)
        self._fill_lungs(canvas, lung, polar, level)
        tumour = np.zeros(canvas.shape, np.float32)
        wall = canvas.coverage(inner - 3.0)
        for item in self.tumours:
            item.paint(canvas, wall, tumour)
        self._shoulders(canvas, level)
        self.spine.paint(canvas)
        paint_ribs(canvas, self._ribs, self.spine.bone)
        self._sternum(canvas, level)
        return tumour

    def _lungs(self, canvas: Canvas, inner: Float, level: float) -> tuple[Float, Float]:
        """Coverage of the lungs, and the signed distance in mm to their surface."""
        _, front, back = self.cage.bounds(level)
        y = np.linspace(front, back, 96)
        depth = (y - front) / max(back - front, 1)
        at = np.clip((canvas.y - np.float32(front)) * np.float32(95 / max(back - front, 1)), 0, 95)
        fine = [
            Track(list(_DEPTHS), [[v] for v in border(level)])(depth)[:, 0].astype(np.float32)
            for border in (self._right, self._left)
        ]
        low = at.astype(np.int32)
        part = at - low
        high = np.minimum(low + 1, 95)
        right, left = (row[low] * (1 - part) + row[high] * part for row in fine)
        medial = np.where(canvas.x < 0, canvas.x + right, left - canvas.x)
        distance = np.maximum(inner, medial)
        for dome in self._domes(canvas.z):
            if dome is not None:
                distance = np.maximum(distance, -ellipse_distance(canvas.x, canvas.y, *dome))
        if level < 0.95:
            distance = np.maximum(distance, np.float32(5))
        return canvas.coverage(distance), distance

    def _domes(self, z: float) -> list[tuple[tuple[float, float], tuple[float, float]] | None]:
        """Ellipses of the abdomen under the right and the left diaphragm at height z."""
        domes: list[tuple[tuple[float, float], tuple[float, float]] | None] = []
        for apex, centre in zip(self._apex, ((-70.0, -42.0), (66.0, -48.0)), strict=True):
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
            deep = self._apex[0] - canvas.z
            canvas.ellipse((-5, -70), (min(deep, 50) * 1.3, min(deep, 40) * 0.9), liver, within=cavity)
        if left is not None:
            centre, (a, b) = left
            deep = self._apex[1] - canvas.z
            canvas.ellipse((centre[0] + 22, centre[1] + 52), (min(deep * 0.8, 32), min(deep, 42)), spleen, within=cavity)
            stomach = (centre[0] - 6, centre[1] - 6)
            size = (min(deep, 42.0), min(deep * 0.9, 40.0))
            canvas.ellipse(stomach, size, 45, within=cavity)
            inside = canvas.ellipse(stomach, (size[0] - 4, size[1] - 4), 18, within=cavity)
            if inside is not None:
                box, alpha = inside
                canvas.blend(alpha * canvas.coverage(canvas.y[box] - np.float32(stomach[1] - 14)), -980, box)

    def _mediastinum(self, canvas: Canvas, level: float) -> None:
        blood, wall = self._blood, 40.0
        vein = blood * 0.92 if self._contrast else blood
        gap = 1.0 * self._heart

        def near(at: float, half: float) -> float:
            return float(np.sqrt(max(0.0, 1 - ((level - at) / half) ** 2)))

        if level < 4.0:
            canvas.ellipse((-4, -24), (13, 15), -60)
            for x, y, r, lean in ((-19, -46, 5.0, 2.0), (2, -52, 4.0, -2.0), (16, -38, 4.5, 2.5)):
                canvas.ellipse((x - lean * (4 - level), y + 4 * (4 - level)), (r, r), blood)
            for x, y in ((-27, -58), (12, -64)):
                canvas.ellipse((x, y + 5 * (4 - level)), (8, 6), vein)
            thyroid = near(0.6, 0.9)
            for sign in (-1, 1):
                canvas.ellipse((sign * 15, -36), (8 * thyroid, 12 * thyroid), 110)
        arch = near(4.05, 0.45)
        if arch > 0:
            canvas.curve([(-14, -66), (-3, -56), (12, -38), (25, -16)], [13 * arch] * 4, blood)
        if 4.1 < level < 7.7:
            canvas.ellipse((-10 + (level - 4) * 2, -74), (15.5, 15.5), wall)
            canvas.ellipse((-10 + (level - 4) * 2, -74), (14.3, 14.3), blood)
        if level > 4.1:
            x, y = float(np.interp(level, [4, 8, 12], [27, 25, 10])), float(np.interp(level, [4, 8, 12], [-12, -16, -30]))
            canvas.ellipse((x, y), (13, 13), wall)
            canvas.ellipse((x, y), (11.7, 11.7), blood)
        if 3.4 < level < 7:
            canvas.ellipse((-27, -58), (8.5, 10), vein)
        trunk = near(5.9, 0.75)
        canvas.ellipse((17, -80), (14 * trunk, 15 * trunk), blood)
        r = 9.5 * near(5.75, 0.42)
        canvas.curve([(14, -66), (-8, -54), (-28, -48), (-44, -46)], [r, r, r * 0.95, r * 0.75], blood)
        r = 9.0 * near(5.35, 0.42)
        canvas.curve([(18, -68), (34, -48), (44, -34)], [r, r, r * 0.8], blood)
        size = self._heart
        heart = near(8.75, 1.75)
        canvas.ellipse((20, -74), (62 * heart * size + gap, 44 * heart * size + gap), wall, angle=0.55, power=2.2)
        if heart > 0.35:
            blood_in = blood * 0.95 if self._contrast else blood - 2
            muscle = 95.0 if self._contrast else 46.0
            canvas.ellipse((36, -70), (38 * heart * size, 32 * heart * size), muscle, angle=0.6)
            canvas.ellipse((38, -69), (25 * near(8.9, 1.3), 19 * near(8.9, 1.3)), blood_in, angle=0.6)
            canvas.ellipse((8, -92), (36 * near(8.7, 1.35), 17 * near(8.7, 1.35)), blood_in * 0.95, angle=0.5)
            canvas.ellipse((-22, -72), (19 * near(8.5, 1.4), 27 * near(8.5, 1.4)), blood_in * 0.9, angle=0.2)
        atrium = near(7.3, 1.05)
        canvas.ellipse((4, -42), (33 * atrium, 16 * atrium), blood)
        for sign, x in ((-1, -48), (1, 52)):
            r = 6.5 * near(7.0 + 0.15 * sign, 0.4)
            canvas.curve([(sign * 24, -42), (x * 0.8, -40), (x, -33)], [r, r, r * 0.8], blood)
        if level > 9.4:
            canvas.ellipse((-24, -46), (12, 10), vein * 0.8 if self._contrast else vein)
        canvas.ellipse((7 if level < 10 else 12, -27), (8, 5.5), 38)
        if np.sin(canvas.z / 17 + self._phase[0]) > 0.55:
            canvas.ellipse((7, -27), (2.5, 1.8), -700)
        if 4.5 < level < 11:
            canvas.ellipse((-8, -14), (4, 3.5), vein)
        for i in range(4):
            size_node = 5.5 * near(4.6 + 0.55 * i, 0.3)
            canvas.ellipse((-14 + 11 * np.sin(self._phase[i]), -42 - 5 * i), (size_node * 1.3, size_node), 38)
        self._airways(canvas, level)

    def _airways(self, canvas: Canvas, level: float) -> None:
        if level < 4.9:
            canvas.ellipse((0, -35 + 2 * level), (10.5, 10), 45)
            canvas.ellipse((0, -35 + 2 * level), (8.8, 8.3), -985)
            return
        for sign, slope, last in ((-1, 17.0, 7.4), (1, 24.0, 6.9)):
            far = level - 4.75
            if level < last:
                x, y = sign * (5 + slope * far), -27 - 5 * far
                shape = (8.5 - 1.0 * far, 6.8 - 0.6 * far)
                canvas.ellipse((x, y), (shape[0] + 1.6, shape[1] + 1.6), 45)
                canvas.ellipse((x, y), shape, -985)

    def _fill_lungs(self, canvas: Canvas, lung: Float, polar: Polar, level: float) -> None:
        y = canvas.y
        grain = self._texture(canvas.x, y, canvas.z)
        tissue = self._lung + self._dependent * np.clip((y + 20) / 75, 0, 1) ** 2 + 13 * grain
        canvas.blend(lung, tissue.astype(np.float32))
        arteries, airways = self._vessels
        canvas.blend(arteries.coverage(canvas) * lung, self._blood * 0.8 if self._contrast else 38)
        walls, lumen = airways
        canvas.blend(walls.coverage(canvas) * lung, -60)
        canvas.blend(lumen.coverage(canvas) * lung, -960)
        for centre, size, hu in self._nodules:
            apart = abs(canvas.z - centre[2])
            r = float(np.sqrt(max(size**2 - apart**2, 0)))
            canvas.ellipse((centre[0], centre[1]), (r, r), hu, within=lung)
        for angle, at, wide, thick in self._plaques:
            height = float(np.exp(-(((level - at) / 0.8) ** 2)))
            turn = np.angle(np.exp(1j * (polar.angles - angle)))
            bulge = thick * height * np.exp(-((turn / wide) ** 2))
            if height > 0.05:
                edge = self.cage.radius(polar.angles, level) - bulge
                canvas.blend(canvas.coverage(-polar.distance(edge), 2.0) * lung, 42)
        if self._effusion and level > 7:
            layer = self._effusion * float(np.clip((level - 7) / 3, 0, 1)) * 3
            back = self.cage.bounds(level)[2]
            fluid = canvas.coverage(np.float32(back - layer * 0.6 - 6) - y + np.abs(canvas.x) * np.float32(0.12), 2.5)
            canvas.blend(fluid * lung * (np.sign(canvas.x) == self._effusion_side), 8)
        for start, end, z, thick, slope in self._bands:
            offset = canvas.z - z
            strength = float(np.exp(-((offset / 7) ** 2)))
            if strength > 0.05:
                move = slope * offset
                radii = (thick, thick * 0.4)
                canvas.capsule((start[0], start[1] + move), (end[0], end[1] + move), radii, -20, lung, strength * 0.9)

    def _shoulders(self, canvas: Canvas, level: float) -> None:
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

    def _lung_map(self, step: float) -> tuple[Array, Array]:
        """Points (N, 3) in the lungs on a grid of `step` mm, and their distance in mm from the lungs' surface."""
        low, high = self.spine.z(12.2), self.spine.z(0.9)
        heights = np.arange(low, high, step)
        size = int(320 / step)
        volume = np.zeros((len(heights), size, size), bool)
        for i, z in enumerate(heights):
            canvas = Canvas(size, step, float(z), step)
            level = float(self.spine.level(z))
            polar = Polar(canvas, self.cage.centre)
            inner = polar.distance(self.cage.radius(polar.angles, level))
            volume[i] = self._lungs(canvas, inner, level)[1] < -1.0
        depth = ndimage.distance_transform_edt(np.pad(volume, 1), sampling=step)[1:-1, 1:-1, 1:-1]
        index = np.argwhere(volume)
        axis = (np.arange(size) - (size - 1) / 2) * step
        points = np.stack([axis[index[:, 2]], axis[index[:, 1]], heights[index[:, 0]]], axis=1)
        return points, depth[volume]

    def _grow(self, rng: np.random.Generator, voxels: tuple[Array, Array]) -> tuple[Tubes, tuple[Tubes, Tubes]]:
        points, depth = voxels
        vessels, airways = [], []
        for sign in (-1, 1):
            side = points[(np.sign(points[:, 0]) == sign) & (depth > 8)]
            for kind in range(2):
                goals = side[rng.choice(len(side), 330, replace=False)] + rng.uniform(-4, 4, (330, 3))
                root = np.array([sign * 44.0, -44 + 8 * kind, self.spine.z(5.7 + 0.9 * kind)])
                vessels.append(tree(rng, root, goals, 0.62, bend=0.05))
            goals = side[rng.choice(len(side), 36, replace=False)]
            airways.append(tree(rng, np.array([sign * 40.0, -37.0, self.spine.z(6.2)]), goals, 1.0, exponent=2.9))
        merged = [
            Tubes.of([t.points for t in group], [t.radii for t in group])
            for group in (vessels, airways)
        ]
        walls = Tubes(merged[1].points, merged[1].radii + 0.9)
        return merged[0], (walls, merged[1])

    def _seed_tumours(self, rng: np.random.Generator, voxels: tuple[Array, Array]) -> list[Tumour]:
        """One or two tumours that fit the lungs, attached or not with equal probability."""
        points, depth = voxels
        tumours: list[Tumour] = []
        for _ in range(1 if rng.random() < 0.65 else 2):
            attached = bool(rng.random() < 0.5)
            radius = float(np.exp(rng.uniform(np.log(8.5), np.log(29))))
            for _attempt in range(60):
                centre = points[rng.integers(len(points))] + rng.uniform(-3, 3, 3)
                if attached:
                    centre = self._to_wall(centre, radius * float(rng.uniform(0.35, 0.7)))
                middle = self.spine.z(3.0) - radius * 0.5 > centre[2] > self._apex[0] - 40 + radius * 0.5
                apart = points - centre
                near = depth[np.argmin((apart**2).sum(axis=1))]
                lateral = abs(centre[0]) > 62 and centre[1] < 32
                clear = all(np.linalg.norm(centre - t.centre) > radius + t.radius + 12 for t in tumours)
                fits = lateral if attached else near > min(radius * 1.1 + 3, 34)
                if middle and clear and fits and (attached or near > 6):
                    break
                radius = max(radius * 0.985, 8.5)
            else:
                continue
            tumours.append(Tumour(rng, centre, radius, attached, self._contrast))
        if not tumours:
            centre = points[np.argmax(depth)]
            tumours.append(Tumour(rng, centre, float(min(depth.max() * 0.8, 16.0)), False, self._contrast))
        return tumours

    def _to_wall(self, point: Array, inside: float) -> Array:
        """The point on the same ray from the cage's axis, `inside` mm within the chest wall."""
        angle = np.arctan2(point[0], self.cage.centre - point[1])
        radius = float(self.cage.radius(np.array(angle), float(self.spine.level(point[2])))) - inside
        return np.array([radius * np.sin(angle), self.cage.centre - radius * np.cos(angle), point[2]])

    def _seed_nodules(
        self, rng: np.random.Generator, voxels: tuple[Array, Array]
    ) -> list[tuple[Array, float, float]]:
        points, depth = voxels
        inside = points[depth > 8]
        return [
            (inside[rng.integers(len(inside))], float(rng.uniform(1.6, 3.2)), float(rng.choice([30, 60, 320, 600])))
            for _ in range(int(rng.integers(1, 6)))
        ]

    def _seed_bands(
        self, rng: np.random.Generator
    ) -> list[tuple[tuple[float, float], tuple[float, float], float, float, float]]:
        bands = []
        for _ in range(int(rng.integers(0, 4))):
            sign = float(rng.choice([-1, 1]))
            start = (sign * float(rng.uniform(95, 122)), float(rng.uniform(-40, 25)))
            end = (sign * float(rng.uniform(48, 70)), start[1] + float(rng.uniform(-30, 20)))
            z = self._apex[0] + float(rng.uniform(-25, 45))
            bands.append((start, end, z, float(rng.uniform(1.0, 2.6)), float(rng.uniform(-0.5, 0.5))))
        return bands

