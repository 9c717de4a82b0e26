"""Abdomen from T9 to the pelvis: what lies around each vertebra follows its level, so that L3 can be told from L2 and L4.

The label marks mid-L3: the slices whose height lies in the central 55 % of the L3 vertebral body, as readers do who
mark the slices that show its whole outline; on them it covers the vertebral body.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from hounsfield.phantom.canvas import Canvas, Float, Texture, Warp, ellipse_distance
from hounsfield.phantom.shapes import Array, Body, Outline, Polar, Tubes, bump, polyline, tree
from hounsfield.phantom.spine import L3, Spine, paint_ribs, ribs
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
        self.front, self.back, self.half_width = self.wall.reach((10.0, 15.0, 18.0, 21.0))
        self._ribs = ribs(self.spine, self.cavity, rng, 7, 12)
        self._muscle = float(rng.uniform(44, 60))
        self._contrast = bool(rng.random() < 0.7)
        self._blood = float(rng.uniform(120, 190)) if self._contrast else float(rng.uniform(38, 46))
        self._late = bool(rng.random() < 0.4)
        self._dome = self.spine.z(float(rng.uniform(8.9, 9.9)))
        self._visceral = float(rng.uniform(-108, -92))
        self._psoas = float(rng.uniform(0.85, 1.15))
        self._crest = float(rng.uniform(16.15, 16.6))
        self._fork = float(rng.uniform(15.9, 16.6))
        self._phase = rng.uniform(0, 2 * np.pi, 12)
        self._gas = float(rng.uniform(0.0, 0.9))
        self._bodies = self._organs(rng)
        self._loops = self._bowel(rng)
        self._mesentery = self._vessels(rng)
        self._colon = self._colon_path(rng)
        self._texture = Texture(rng, 5.0)
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
        self._great_vessels(canvas, level)
        self._upper_organs(canvas, cavity, level)
        self._kidneys(canvas, level)
        self._intestine(canvas, cavity, level)
        canvas.blend(self._mesentery.coverage(canvas) * cavity, self._blood * 0.75 if self._contrast else 30)
        self._lungs(canvas, inner, level)
        self._pelvis(canvas, level)
        body = self.spine.paint(canvas)
        paint_ribs(canvas, self._ribs, self.spine.bone)
        self._hips(canvas, level)
        return body

    def _organs(self, rng: np.random.Generator) -> dict[str, Body]:
        def size() -> float:
            return float(rng.uniform(0.9, 1.1))

        move = {name: float(rng.normal(0, 0.16)) for name in ("liver", "spleen", "stomach", "right", "left", "pancreas")}
        return {
            "liver": Body(
                [
                    (8.2, -66, -40, 0, 0),
                    (9.5, -66, -40, 52, 62),
                    (11, -64, -36, 66, 84),
                    (12.2, -68, -34, 62, 80),
                    (13.2, -80, -32, 46, 66),
                    (14.2, -94, -34, 26, 44),
                    (15.1, -100, -38, 0, 0),
                ],
                move["liver"],
                size(),
            ),
            "left lobe": Body(
                [(8.9, 0, -70, 0, 0), (10, 0, -78, 52, 34), (11.5, -4, -82, 56, 32), (12.8, -12, -84, 30, 22), (13.5, -18, -84, 0, 0)],
                move["liver"],
                size(),
            ),
            "spleen": Body(
                [(9.3, 92, 8, 0, 0), (10.2, 94, 4, 28, 44), (11.6, 98, 0, 26, 46), (12.6, 102, -4, 20, 34), (13.4, 104, -8, 0, 0)],
                move["spleen"],
                size(),
            ),
            "stomach": Body(
                [(9.2, 50, -48, 0, 0), (10.2, 56, -56, 40, 38), (11.8, 58, -68, 42, 34), (12.9, 42, -76, 46, 24), (13.8, 20, -80, 0, 0)],
                move["stomach"],
                size(),
            ),
            "kidney right": Body(
                [(12.5, -54, 12, 0, 0), (13.2, -56, 10, 25, 29), (14.1, -62, 6, 27, 31), (14.8, -66, 2, 23, 26), (15.35, -67, -1, 0, 0)],
                move["right"],
                size(),
            ),
            "kidney left": Body(
                [(12.2, 54, 14, 0, 0), (12.9, 56, 12, 26, 30), (13.8, 62, 8, 28, 32), (14.5, 66, 4, 24, 27), (15.1, 68, 0, 0, 0)],
                move["left"],
                size(),
            ),
            "gallbladder": Body(
                [(12.9, -48, -70, 0, 0), (13.4, -50, -74, 15, 18), (14.1, -52, -80, 0, 0)], move["liver"], size()
            ),
            "bladder": Body([(20.8, 0, -52, 0, 0), (21.8, 0, -54, 36, 30), (24, 0, -46, 40, 34), (26, 0, -36, 20, 20)], 0.0, size()),
        }

    def _upper_organs(self, canvas: Canvas, cavity: Float, level: float) -> None:
        liver, spleen = (108.0, 116.0) if self._contrast else (60.0, 48.0)
        at = self._bodies["stomach"].at(level)
        if at is not None:
            (x, y), (a, b) = at
            canvas.ellipse((x, y), (a, b), 46 if not self._contrast else 75, angle=-0.4, within=cavity)
            hit = canvas.ellipse((x, y), (a - 4, b - 4), 16, angle=-0.4, within=cavity)
            if hit is not None:
                box, alpha = hit
                surface = np.float32(y - b * (0.2 + 0.5 * self._gas))
                canvas.blend(alpha * canvas.coverage(canvas.y[box] - surface), -970, box)
        for name, hu in (("liver", liver), ("left lobe", liver), ("spleen", spleen)):
            at = self._bodies[name].at(level)
            if at is None:
                continue
            hit = canvas.ellipse(at[0], at[1], hu, power=2.3, within=cavity)
            if name == "liver" and hit is not None:
                box, alpha = hit
                for i in range(7):
                    turn, far = self._phase[i] + canvas.z / 45, 0.18 + 0.1 * i
                    spot = at[0][0] + at[1][0] * far * np.cos(turn), at[0][1] + at[1][1] * far * np.sin(turn)
                    canvas.ellipse(spot, (4.5, 2.6), hu + (35 if self._contrast else -14), turn, soft=2.5, within=cavity)
        at = self._bodies["gallbladder"].at(level)
        if at is not None:
            canvas.ellipse(at[0], at[1], 9)
        pancreas = bump(level, 12.75, 13.5, 0.25)
        if pancreas > 0.02:
            r = 9 * np.sqrt(pancreas)
            hu = 88.0 if self._contrast else 36.0
            canvas.curve([(-26, -48), (0, -56), (30, -48), (66, -28)], [r * 1.1, r * 0.8, r * 0.9, r * 0.7], hu)

    def _kidneys(self, canvas: Canvas, level: float) -> None:
        for sign, name in ((-1, "kidney right"), (1, "kidney left")):
            at = self._bodies[name].at(level)
            if at is None:
                continue
            (x, y), (a, b) = at
            turn = sign * 0.45
            cortex, medulla = (185.0, 150.0) if self._contrast else (34.0, 30.0)
            canvas.ellipse((x, y), (a, b), cortex, turn)
            canvas.ellipse((x, y), (a - 6.5, b - 6.5), medulla, turn, soft=3)
            first, last = self._bodies[name].first, self._bodies[name].last
            middle = bump(level, first + 0.3 * (last - first), first + 0.75 * (last - first), 0.5)
            sinus = (x - sign * 7, y - 5)
            canvas.ellipse(sinus, (a * 0.52 * middle, b * 0.42 * middle), -85, turn)
            if middle > 0.6:
                canvas.ellipse((sinus[0] - sign * 8, sinus[1] - 4), (a * 0.35, b * 0.3), -85, turn)
                pelvis = 280.0 if self._contrast and self._late else 12.0
                canvas.ellipse(sinus, (a * 0.24, b * 0.18), pelvis, turn)
                if abs(level - (first + last) / 2) < 0.25:
                    vein = (sign * 12 - 4, -26)
                    canvas.capsule((sinus[0] - sign * 6, sinus[1] - 4), vein, (4.5, 4.0), self._blood * 0.9)

    def _great_vessels(self, canvas: Canvas, level: float) -> None:
        x0, y0 = self.spine.centre(min(level, 17.5))
        _, depth, _ = self.spine.size(min(level, 17.5))
        front = y0 - depth
        blood, vein = self._blood, self._blood * (0.9 if self._contrast else 1.0)
        if level < self._fork:
            canvas.ellipse((x0 + 9, front - 13), (10.5, 10.5), 46)
            canvas.ellipse((x0 + 9, front - 13), (9.3, 9.3), blood)
            if self._phase[3] > 3:
                turn = self._phase[4] + canvas.z / 12
                canvas.ellipse((x0 + 9 + 9.4 * np.cos(turn), front - 13 + 9.4 * np.sin(turn)), (2.2, 1.6), 520)
        else:
            apart = min((level - self._fork) * 15, 62)
            back = max(level - 17.6, 0) * 11
            for sign in (-1, 1):
                canvas.ellipse((x0 + 2 + sign * (7 + apart), front - 11 + back), (6.8, 6.8), blood)
        if level < self._fork + 0.6:
            liver_side = max(12.0 - level, 0) * 4
            canvas.ellipse((x0 - 18, front - 8 - liver_side), (12.5, 9.5), vein)
        else:
            apart = min((level - self._fork - 0.6) * 14, 56)
            back = max(level - 17.6, 0) * 12
            for sign in (-1, 1):
                canvas.ellipse((x0 - 6 + sign * (9 + apart), front - 3 + back), (8.5, 7.0), vein)
        if 13.1 < level < 16:
            canvas.ellipse((x0 + 6, front - 33), (4.2, 4.2), blood)
            canvas.ellipse((x0 - 8, front - 35), (6.5, 6.0), vein)
        if 10 < level < 13.6:
            for sign in (-1, 1):
                canvas.curve([(x0 + sign * 6, front - 6), (x0 + sign * 16, front + 6)], [4.0, 4.5], self._muscle)

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
                canvas.curve(
                    [(cx + sign * 13, cy + depth + 24), (cx + sign * (w + 8), cy + depth + 17), (cx + sign * 58, cy + depth + 22)],
                    [1.0, 0.8, 1.0],
                    fat,
                    0.75,
                )
                canvas.capsule((cx + sign * 17, cy + depth + 26), (cx + sign * 19, cy + depth + 44), (0.8, 1.8), fat, strength=0.7)

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

    def _intestine(self, canvas: Canvas, cavity: Float, level: float) -> None:
        wall = 70.0 if self._contrast else 42.0
        for tubes, hu in zip(self._loops, (wall, 22.0, 230.0, -940.0), strict=True):
            canvas.blend(tubes.coverage(canvas) * cavity, hu)
        shell, lumen, stool = self._colon
        canvas.blend(shell.coverage(canvas) * cavity, wall)
        inside = lumen.coverage(canvas) * cavity
        speckle = self._texture(canvas.x, canvas.y, canvas.z)
        floats = np.clip(0.5 - (canvas.y + 40) / 90, 0.1, 1.2)
        gas = np.clip((speckle - 1.6 + self._gas + floats) * 2.0, 0, 1)
        canvas.blend(inside, stool + 12 * speckle - 850 * gas)

    def _lungs(self, canvas: Canvas, inner: Float, level: float) -> None:
        if level > 13.2:
            return
        distance = inner.copy()
        for drop, centre in ((0.0, (-66.0, -40.0)), (12.0, (64.0, -46.0))):
            share = (self._dome - drop - canvas.z) / 80
            if share > 0:
                semi = (74 * float(np.sqrt(share)) + 8 * share, 90 * float(np.sqrt(share)) + 8 * share)
                distance = np.maximum(distance, -ellipse_distance(canvas.x, canvas.y, centre, semi))
        medial = 27 + 34 * np.clip((-25 - canvas.y) / 55, 0, 1)
        distance = np.maximum(distance, medial.astype(np.float32) - np.abs(canvas.x))
        canvas.blend(canvas.coverage(distance), -840)

    def _pelvis(self, canvas: Canvas, level: float) -> None:
        """Bladder, rectum, and the fat between the muscles around the pelvis."""
        at = self._bodies["bladder"].at(level)
        if at is not None:
            canvas.ellipse(at[0], (at[1][0] + 3, at[1][1] + 3), 38)
            canvas.ellipse(at[0], at[1], 6)
        if level > 19.2:
            canvas.ellipse((0, 14 + 5 * (level - 19.2)), (15, 14), 40)
            canvas.ellipse((0, 14 + 5 * (level - 19.2)), (11, 10), 22)

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
                canvas.ellipse((sign * 88, -8), (34 * cup, 34 * cup), bone.compact * 0.9)
                canvas.ellipse((sign * 86, -8), (31 * cup, 31 * cup), bone.spongy)
            head = float(np.sqrt(max(0.0, 1 - ((level - 23.8) / 1.25) ** 2)))
            if head > 0:
                canvas.ellipse((sign * 92, -6), (25.5 * head, 25.5 * head), 30)
                canvas.ellipse((sign * 92, -6), (24 * head, 24 * head), bone.compact * 0.8)
                canvas.ellipse((sign * 92, -6), (22 * head, 22 * head), bone.spongy * 1.2)

    def _bowel(self, rng: np.random.Generator) -> tuple[Tubes, Tubes, Tubes, Tubes]:
        """Winding small bowel: its outside, lumen filled with fluid, lumen filled with oral contrast, and gas."""
        oral = rng.random() < 0.25
        lines: list[list[Array]] = [[], [], [], []]
        radii: list[list[Array]] = [[], [], [], []]
        for _ in range(int(rng.integers(11, 18))):
            corners = []
            level = float(rng.uniform(13.6, 20.8))
            side, deep = rng.uniform(-0.9, 0.9), rng.uniform(0, 1)
            for _ in range(8):
                half, front, _ = self.cavity.bounds(level)
                corners.append((side * (half - 42), front + 20 + deep * max(-36 - front - 20, 12), self.spine.z(level)))
                level = float(np.clip(level + rng.normal(0, 0.55), 13.4, 21.2))
                side, deep = np.clip(side + rng.normal(0, 0.45), -1, 1), np.clip(deep + rng.normal(0, 0.4), 0, 1)
            line = polyline(np.array(PchipInterpolator(range(8), corners)(np.linspace(0, 7, 60))), 2.0)
            along = np.arange(len(line))
            radius = rng.uniform(8.5, 13.5) * (1 + 0.16 * np.sin(along / rng.uniform(4, 9)))
            kind = 2 if oral and rng.random() < 0.7 else 1
            for where in (0, kind):
                lines[where].append(line)
                radii[where].append(radius - 2.3 * (where > 0))
            bubbles = np.sin(along / rng.uniform(6, 14) + rng.uniform(0, 6)) > 0.7
            if rng.random() < 0.4 and bubbles.any():
                lines[3].append(line[bubbles] - np.array([0.0, 3.0, 0.0]))
                radii[3].append(radius[bubbles] - 5.0)
        shell, fluid, contrast, gas = (Tubes.of(*pair) for pair in zip(lines, radii, strict=True))
        return shell, fluid, contrast, gas

    def _colon_path(self, rng: np.random.Generator) -> tuple[Tubes, Tubes, float]:
        """Ascending, transverse, descending and sigmoid colon: outside, lumen and its content in HU."""
        sag = float(rng.uniform(13.6, 15.6))
        corners = [
            (-84, -40, 18.6),
            (-92, -34, 17.2),
            (-94, -26, 15.6),
            (-86, -40, 14.3),
            (-62, -78, 14.0),
            (-24, -82, sag),
            (20, -82, sag + 0.2),
            (60, -74, 13.6),
            (92, -30, 12.6),
            (97, -6, 13.6),
            (98, -4, 15.4),
            (92, -8, 17.2),
            (74, -22, 18.6),
            (40, -30, 19.4),
            (14, -10, 19.6),
            (0, 12, 20.2),
        ]
        line = polyline(np.array([(x, y, self.spine.z(level)) for x, y, level in corners]), 2.0)
        along = np.arange(len(line)) * 2.0
        radius = np.interp(along / along[-1], [0, 0.25, 0.5, 0.7, 1], [22, 19, 17, 13, 12]) * rng.uniform(0.85, 1.1)
        radius = radius * (1 + 0.14 * np.sin(along / 7.0))
        return Tubes.of([line], [radius]), Tubes.of([line], [radius - 2.4]), float(rng.uniform(-20, 45))

    def _vessels(self, rng: np.random.Generator) -> Tubes:
        """Mesenteric vessels in the fat in front of the spine."""
        goals = []
        for _ in range(150):
            level = float(rng.uniform(13.6, 19.5))
            half, front, _ = self.cavity.bounds(level)
            goals.append(
                (rng.uniform(-0.75, 0.75) * half, rng.uniform(front + 12, -32), self.spine.z(level))
            )
        return tree(rng, np.array([0.0, -58.0, self.spine.z(13.3)]), np.array(goals), 0.75)
