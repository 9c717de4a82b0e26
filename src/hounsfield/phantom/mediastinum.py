"""Between the lungs: heart, great vessels, airways, oesophagus and lymph nodes, in contrast or without."""

from __future__ import annotations

import numpy as np

from hounsfield.phantom.canvas import Canvas


class Mediastinum:
    """`contrast` tells whether blood is enhanced; `blood` is its attenuation in HU."""

    def __init__(self, rng: np.random.Generator, contrast: bool, blood: float) -> None:
        self._contrast, self._blood = contrast, blood
        self._vein = blood * 0.92 if contrast else blood
        self._heart = float(rng.uniform(0.88, 1.12))
        self._calcified = bool(rng.random() < 0.4)
        self._phase = rng.uniform(0, 2 * np.pi, 6)

    def paint(self, canvas: Canvas, level: float) -> None:
        """Paint what lies at spinal level `level`; the lungs are painted over it later."""
        self._neck(canvas, level)
        self._arteries(canvas, level)
        self._chambers(canvas, level)
        self._veins(canvas, level)
        self._oesophagus_and_nodes(canvas, level)
        self._airways(canvas, level)

    def _neck(self, canvas: Canvas, level: float) -> None:
        if level > 4:
            return
        up = 4 - level
        canvas.ellipse((-4, -24), (13, 15), -60)
        for x, y, r, lean in ((-19, -46, 5.0, 2.0), (2, -52, 4.0, -2.0), (16, -38, 4.5, 2.5)):
            canvas.ellipse((x - lean * up, y + 4 * up), (r, r), self._blood)
        for x, y in ((-27, -58), (12, -64)):
            canvas.ellipse((x, y + 5 * up), (8, 6), self._vein)
        thyroid = _near(level, 0.6, 0.9)
        for sign in (-1, 1):
            canvas.ellipse((sign * 15, -36), (8 * thyroid, 12 * thyroid), 110)

    def _arteries(self, canvas: Canvas, level: float) -> None:
        blood, wall = self._blood, 40.0
        arch = 13 * _near(level, 4.05, 0.45)
        canvas.curve([(-14, -66), (-3, -56), (12, -38), (25, -16)], [arch] * 4, blood)
        if 4.1 < level < 7.7:
            centre = (-10 + (level - 4) * 2, -74.0)
            canvas.ellipse(centre, (15.5, 15.5), wall)
            canvas.ellipse(centre, (14.3, 14.3), blood)
        if level > 4.1:
            centre = (
                float(np.interp(level, [4, 8, 12], [27, 25, 10])),
                float(np.interp(level, [4, 8, 12], [-12, -16, -30])),
            )
            canvas.ellipse(centre, (13, 13), wall)
            canvas.ellipse(centre, (11.7, 11.7), blood)
            if self._calcified and np.sin(canvas.z / 9 + self._phase[4]) > 0.2:
                turn = self._phase[5] + canvas.z / 14
                canvas.ellipse(
                    (centre[0] + 11.8 * np.cos(turn), centre[1] + 11.8 * np.sin(turn)), (3, 1.3), 520, turn + 1.57
                )
        trunk = _near(level, 5.9, 0.75)
        canvas.ellipse((17, -80), (14 * trunk, 15 * trunk), blood)
        r = 9.5 * _near(level, 5.75, 0.42)
        canvas.curve([(14, -66), (-8, -54), (-28, -48), (-44, -46)], [r, r, r * 0.95, r * 0.75], blood)
        r = 9.0 * _near(level, 5.35, 0.42)
        canvas.curve([(18, -68), (34, -48), (44, -34)], [r, r, r * 0.8], blood)

    def _chambers(self, canvas: Canvas, level: float) -> None:
        blood, size = self._blood, self._heart
        heart = _near(level, 8.75, 1.75) * size
        canvas.ellipse((20, -74), (62 * heart, 44 * heart), 40, angle=0.55, power=2.2)
        if heart > 0.35:
            inside = blood * 0.95 if self._contrast else blood - 2
            canvas.ellipse((36, -70), (38 * heart, 32 * heart), 95 if self._contrast else 46, angle=0.6)
            left, right, atrium = _near(level, 8.9, 1.3), _near(level, 8.7, 1.35), _near(level, 8.5, 1.4)
            canvas.ellipse((38, -69), (25 * left, 19 * left), inside, angle=0.6)
            canvas.ellipse((8, -92), (36 * right, 17 * right), inside * 0.95, angle=0.5)
            canvas.ellipse((-22, -72), (19 * atrium, 27 * atrium), inside * 0.9, angle=0.2)
        atrium = _near(level, 7.3, 1.05)
        canvas.ellipse((4, -42), (33 * atrium, 16 * atrium), blood)
        for sign, x in ((-1, -48), (1, 52)):
            r = 6.5 * _near(level, 7.0 + 0.15 * sign, 0.4)
            canvas.curve([(sign * 24, -42), (x * 0.8, -40), (x, -33)], [r, r, r * 0.8], blood)

    def _veins(self, canvas: Canvas, level: float) -> None:
        if 3.4 < level < 7:
            canvas.ellipse((-27, -58), (8.5, 10), self._vein)
        if level > 9.4:
            canvas.ellipse((-24, -46), (12, 10), self._vein * 0.8 if self._contrast else self._vein)
        if 4.5 < level < 11:
            canvas.ellipse((-8, -14), (4, 3.5), self._vein)

    def _oesophagus_and_nodes(self, canvas: Canvas, level: float) -> None:
        canvas.ellipse((7 if level < 10 else 12, -27), (8, 5.5), 38)
        if np.sin(canvas.z / 17 + self._phase[0]) > 0.55:
            canvas.ellipse((7, -27), (2.5, 1.8), -700)
        for i in range(4):
            size = 5.5 * _near(level, 4.6 + 0.55 * i, 0.3)
            canvas.ellipse((-14 + 11 * np.sin(self._phase[i]), -42 - 5 * i), (size * 1.3, size), 38)

    def _airways(self, canvas: Canvas, level: float) -> None:
        if level < 4.9:
            centre = (0.0, -35 + 2 * level)
            canvas.ellipse(centre, (10.5, 10), 45)
            canvas.ellipse(centre, (8.8, 8.3), -985)
            return
        far = level - 4.75
        for sign, slope, last in ((-1, 17.0, 7.4), (1, 24.0, 6.9)):
            if level < last:
                centre, (a, b) = (sign * (5 + slope * far), -27 - 5 * far), (8.5 - 1.0 * far, 6.8 - 0.6 * far)
                canvas.ellipse(centre, (a + 1.6, b + 1.6), 45)
                canvas.ellipse(centre, (a, b), -985)


def _near(level: float, at: float, half: float) -> float:
    """Relative width of a ball of `half` levels around `at`, cut at `level`: 1 in the middle, 0 outside."""
    return float(np.sqrt(max(0.0, 1 - ((level - at) / half) ** 2)))
