"""Abdomen from T9 to the pelvis. What lies around each vertebra follows its level, so that L3 differs from L2 and L4.

The label marks mid-L3: the slices whose height lies in the central 55 % of the L3 vertebral body, as readers do who
mark the slices that show its whole outline; on them it covers the vertebral body.
"""

from __future__ import annotations

import numpy as np

from hounsfield.phantom.bowel import Bowel
from hounsfield.phantom.canvas import Canvas, ellipse_distance
from hounsfield.phantom.fields import Float, Warp
from hounsfield.phantom.organs import Organs
from hounsfield.phantom.ribs import Ribs
from hounsfield.phantom.shapes import Outline, Polar
from hounsfield.phantom.spine import L3, Spine
from hounsfield.phantom.wall import Wall

LABELLED_SHARE = 0.55
"""Central part of the L3 vertebral body's height that the label marks."""

_CAVITY = (  # level, half width, front y, back y of the peritoneum and retroperitoneum
    (8, 128, -122, 50),
    (10, 130, -120, 48),
    (12, 128, -112, 40),
    (13, 124, -106, 32),
    (14, 120, -100, 26),
    (15, 116, -94, 22),
    (16, 114, -90, 22),
    (17, 112, -88, 26),
    (18, 108, -88, 34),
    (20, 92, -88, 46),
    (22, 72, -86, 52),
    (24, 60, -80, 50),
)
_MUSCLE = (  # level, then thickness in mm outside the cavity in the `DIRECTIONS`
    (8, 9, 11, 16, 21, 24, 25, 22),
    (10, 10, 11, 13, 18, 23, 27, 24),
    (12, 10, 12, 14, 22, 30, 35, 31),
    (13, 10, 14, 16, 26, 38, 41, 37),
    (14, 10, 16, 19, 31, 45, 46, 41),
    (15, 10, 17, 23, 34, 48, 48, 43),
    (16, 10, 17, 24, 35, 49, 47, 41),
    (17, 10, 16, 26, 40, 51, 44, 34),
    (18, 10, 16, 34, 52, 58, 44, 27),
    (20, 10, 20, 58, 72, 68, 48, 22),
    (22, 11, 30, 84, 88, 76, 56, 28),
    (24, 14, 44, 98, 94, 80, 64, 36),
)


class Abdomen:
    """One patient's abdomen."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.spine = Spine(rng)
        self.warp = Warp(rng, 2.8)
        self.cavity = Outline(_CAVITY, -30.0, 2.25)
        self.wall = Wall(rng, self.cavity, _MUSCLE, fat=float(rng.uniform(8, 36)))
        self.sex, self.age = str(rng.choice(["F", "M"])), int(rng.integers(38, 88))
        self.front, self.back, self.half_width = self.wall.reach((10.0, 15.0, 18.0, 21.0))
        self._ribs = Ribs.grow(rng, self.spine, self.cavity, 7, 12)
        contrast = bool(rng.random() < 0.7)
        self._blood = float(rng.uniform(120, 190)) if contrast else float(rng.uniform(38, 46))
        self._organs = Organs(rng, self.spine, contrast, self._blood)
        self._bowel = Bowel(rng, self.spine, self.cavity, contrast, self._blood)
        self._muscle = float(rng.uniform(44, 60))
        self._visceral = float(rng.uniform(-108, -92))
        self._psoas = float(rng.uniform(0.85, 1.15))
        self._crest = float(rng.uniform(15.95, 16.2))
        self._dome = self.spine.z(float(rng.uniform(8.9, 9.9)))
        low, high = self.spine.body_span(L3)
        inset = (1 - LABELLED_SHARE) / 2 * (high - low)
        self._label_span = low + inset, high - inset

    def extent(self, rng: np.random.Generator) -> tuple[float, float]:
        top = float(rng.uniform(9.2, 11.2))
        bottom = float(rng.uniform(18.3, 20.0) if rng.random() < 0.4 else rng.uniform(20.0, 25.2))
        return self.spine.z(23.0) - 20 * (bottom - 23) if bottom > 23 else self.spine.z(bottom), self.spine.z(top)

    def labelled(self, z: float) -> bool:
        return self._label_span[0] <= z <= self._label_span[1]

    def paint(self, canvas: Canvas) -> Float:
        level = float(self.spine.level(canvas.z))
        polar = Polar(canvas, self.cavity.centre)
        inner = polar.distance(self.cavity.radius(polar.angles, level))
        self.wall.paint(canvas, polar, level, self._muscle)
        cavity = canvas.coverage(inner)
        canvas.blend(cavity, self._visceral)
        self._front_wall(canvas, level)
        self._muscles(canvas, level)
        self._organs.paint(canvas, cavity, level)
        self._bowel.paint(canvas, cavity)
        self._lungs(canvas, inner, level)
        self._organs.paint_pelvis(canvas, level)
        body = self.spine.paint(canvas)
        self._ribs.paint(canvas, self.spine.bone)
        self._hips(canvas, level)
        return body

    def _muscles(self, canvas: Canvas, level: float) -> None:
        """Psoas, quadratus lumborum and the seams between the muscles of the back."""
        cx, cy = self.spine.centre(min(level, 18.0))
        half, depth, _ = self.spine.size(min(level, 17.9))
        hu, fat = self._muscle, self._visceral
        grow = float(np.clip((level - 12.7) / 4.3, 0, 1.2))
        for sign in (-1, 1):
            if grow > 0.03 and level < 24:
                a = (5 + 13 * grow) * self._psoas
                b = (7 + 16 * grow) * self._psoas
                slide = max(level - 17.3, 0)
                x = sign * (half + 2.5 + a * 0.95 + slide * 8.5)
                y = cy + depth * 0.25 - 6 * grow - slide * 11
                canvas.ellipse((cx + x, y), (a + 1.5, b + 1.5), fat)
                canvas.ellipse((cx + x, y), (a, b), hu + 3, angle=-sign * 0.25)
            if 12.6 < level < 16.8:
                q = float(np.interp(level, [12.6, 14, 16, 16.8], [3, 7, 10, 7]))
                canvas.ellipse((cx + sign * (58 + 3 * (level - 14)), cy + 30), (q * 2.0, q), hu, angle=sign * 0.35)
            if level < 17.6:
                w = float(np.interp(level, [9, 13, 16, 17.6], [20, 27, 29, 22]))
                back = cy + depth
                seam = [(cx + sign * 13, back + 24), (cx + sign * (w + 8), back + 17), (cx + sign * 58, back + 22)]
                canvas.curve(seam, [1.0, 0.8, 1.0], fat, 0.75)
                start, end = (cx + sign * 17, back + 26), (cx + sign * 19, back + 44)
                canvas.capsule(start, end, (0.8, 1.8), fat, strength=0.7)

    def _front_wall(self, canvas: Canvas, level: float) -> None:
        """The rectus muscles' borders: linea alba, semilunar lines and umbilicus."""
        if level < 11.5:
            return
        front = self.cavity.bounds(level)[1]
        gap = float(np.interp(level, [12, 15, 16, 18], [9, 6, 4, 2]))
        canvas.ellipse((0, front - 5), (gap, 7), -85, soft=2)
        for sign in (-1, 1):
            canvas.ellipse((sign * 62, front * 0.86 + 1), (3, 9), -80, angle=-sign * 0.5, soft=2)
        if 15.5 < level < 16.1:
            canvas.ellipse((0, front - 12), (4, 9), 20)

    def _lungs(self, canvas: Canvas, inner: Float, level: float) -> None:
        if level > 13.2:
            return
        distance = inner.copy()
        for drop, centre in ((0.0, (-66.0, -40.0)), (12.0, (64.0, -46.0))):
            share = (self._dome - drop - canvas.z) / 80
            if share > 0:
                semi = (74 * float(np.sqrt(share)) + 8 * share, 90 * float(np.sqrt(share)) + 8 * share)
                distance = np.maximum(distance, -ellipse_distance(canvas.x, canvas.y, centre, semi))
        distance = np.maximum(distance, 25 - np.abs(canvas.x - 2))
        heart = 14.0 + 6.0 * (10 - level), -84.0
        hit = canvas.ellipse(heart, (58, 40), self._blood * 0.9, angle=0.4, strength=float(np.clip(10.2 - level, 0, 1)))
        if hit is not None:
            outside = -ellipse_distance(canvas.x[hit[0]], canvas.y[hit[0]], heart, (60, 42), angle=0.4)
            distance[hit[0]] = np.maximum(distance[hit[0]], outside)
        canvas.blend(canvas.coverage(distance), -840)

    def _hips(self, canvas: Canvas, level: float) -> None:
        """Iliac bones from the crest down, acetabulum and femoral head."""
        bone = self.spine.bone
        down = level - self._crest
        if down <= 0:
            return
        for sign in (-1, 1):
            if down < 5.6:
                open_ = float(np.clip(down / 1.6, 0.04, 1))
                lower = float(np.clip((down - 2.2) / 3.2, 0, 1))
                back = (104 - 52 * open_ + 34 * lower, 40 + 14 * open_ - 26 * lower)
                middle = (114 - 14 * open_ - 4 * lower, 20 - 4 * open_ - 8 * lower)
                front = (118 + 4 * open_ - 24 * lower, 14 - 62 * open_ + 6 * lower)
                points, radii = [], []
                for t in np.linspace(0, 1, 13):
                    u = 1 - t
                    x = u * u * back[0] + 2 * u * t * middle[0] + t * t * front[0]
                    y = u * u * back[1] + 2 * u * t * middle[1] + t * t * front[1]
                    points.append((sign * float(x), float(y)))
                    radii.append(float(4.4 + 4.0 * (1 - t) ** 2 * open_ + 3.5 * t**3 * open_ + 3 * lower))
                amount = float(np.clip(down / 0.15, 0, 1))
                canvas.curve(points, radii, bone.compact * 0.95, amount)
                canvas.curve(points, [max(r - 2.2, 0.5) for r in radii], bone.spongy * 0.9, amount)
            if level > 21.6:
                cup = float(np.sqrt(np.clip((level - 21.6) / 0.8, 0, 1)))
                canvas.ellipse((sign * 80, -6), (29 * cup, 33 * cup), bone.compact * 0.9)
                canvas.ellipse((sign * 80, -6), (27 * cup, 31 * cup), bone.spongy)
            head = float(np.sqrt(max(0.0, 1 - ((level - 23.8) / 1.25) ** 2)))
            if head > 0:
                canvas.ellipse((sign * 93, -6), (25.5 * head, 25.5 * head), 30)
                canvas.ellipse((sign * 93, -6), (24 * head, 24 * head), bone.compact * 0.8)
                canvas.ellipse((sign * 93, -6), (22.5 * head, 22.5 * head), bone.spongy * 1.2)
