"""Solid organs, kidneys and great vessels of the abdomen, each placed by spinal level with some freedom of its own."""

from __future__ import annotations

import numpy as np

from hounsfield.phantom.canvas import Canvas
from hounsfield.phantom.fields import Float
from hounsfield.phantom.shapes import Body, bump
from hounsfield.phantom.spine import Spine

_SHAPES = {  # level, x, y, semi-axes in mm
    "liver": (
        (8.2, -66, -40, 0, 0),
        (9.5, -66, -40, 52, 62),
        (11, -64, -36, 66, 84),
        (12.2, -68, -34, 62, 80),
        (13.2, -80, -32, 46, 66),
        (14.2, -94, -34, 26, 44),
        (15.1, -100, -38, 0, 0),
    ),
    "left lobe": (
        (8.9, 0, -70, 0, 0),
        (10, 0, -78, 52, 34),
        (11.5, -4, -82, 56, 32),
        (12.8, -12, -84, 30, 22),
        (13.5, -18, -84, 0, 0),
    ),
    "spleen": (
        (9.3, 92, 8, 0, 0),
        (10.2, 94, 4, 28, 44),
        (11.6, 98, 0, 26, 46),
        (12.6, 102, -4, 20, 34),
        (13.4, 104, -8, 0, 0),
    ),
    "stomach": (
        (9.2, 50, -48, 0, 0),
        (10.2, 56, -56, 40, 38),
        (11.8, 58, -68, 42, 34),
        (12.9, 42, -76, 46, 24),
        (13.8, 20, -80, 0, 0),
    ),
    "right kidney": (
        (12.5, -54, 12, 0, 0),
        (13.2, -56, 10, 25, 29),
        (14.1, -62, 6, 27, 31),
        (14.8, -66, 2, 23, 26),
        (15.35, -67, -1, 0, 0),
    ),
    "left kidney": (
        (12.2, 54, 14, 0, 0),
        (12.9, 56, 12, 26, 30),
        (13.8, 62, 8, 28, 32),
        (14.5, 66, 4, 24, 27),
        (15.1, 68, 0, 0, 0),
    ),
    "gallbladder": ((12.9, -48, -70, 0, 0), (13.4, -50, -74, 15, 18), (14.1, -52, -80, 0, 0)),
    "bladder": ((20.8, 0, -52, 0, 0), (21.8, 0, -54, 36, 30), (24, 0, -46, 40, 34), (26, 0, -36, 20, 20)),
}


class Organs:
    """Organs of one patient; `contrast` tells whether they are enhanced, `blood` is the vessels' attenuation in HU."""

    def __init__(self, rng: np.random.Generator, spine: Spine, contrast: bool, blood: float) -> None:
        self._spine, self._contrast, self._blood = spine, contrast, blood
        self._vein = blood * 0.9 if contrast else blood
        self._bodies = {
            name: Body(rows, float(rng.normal(0, 0.12)), float(rng.uniform(0.9, 1.1))) for name, rows in _SHAPES.items()
        }
        self._late = bool(rng.random() < 0.4)
        self._fork = float(rng.uniform(15.9, 16.6))
        self._calcified = bool(rng.random() < 0.5)
        self._air = float(rng.uniform(0.2, 0.65))
        self._phase = rng.uniform(0, 2 * np.pi, 8)

    def paint(self, canvas: Canvas, cavity: Float, level: float) -> None:
        """Paint everything at spinal level `level`; `cavity` is the coverage of the abdominal cavity."""
        self._great_vessels(canvas, level)
        self._stomach(canvas, cavity, level)
        self._liver_and_spleen(canvas, cavity, level)
        self._pancreas(canvas, level)
        self._kidney(canvas, "right kidney", -1, level)
        self._kidney(canvas, "left kidney", 1, level)

    def paint_pelvis(self, canvas: Canvas, level: float) -> None:
        """Paint bladder and rectum."""
        at = self._bodies["bladder"].at(level)
        if at is not None:
            canvas.ellipse(at[0], (at[1][0] + 3, at[1][1] + 3), 38)
            canvas.ellipse(at[0], at[1], 6)
        if level > 19.2:
            rectum = (0.0, 14 + 5 * (level - 19.2))
            canvas.ellipse(rectum, (15, 14), 40)
            canvas.ellipse(rectum, (11, 10), 22)

    def _stomach(self, canvas: Canvas, cavity: Float, level: float) -> None:
        at = self._bodies["stomach"].at(level)
        if at is None:
            return
        (x, y), (a, b) = at
        canvas.ellipse((x, y), (a, b), 75 if self._contrast else 46, angle=-0.4, within=cavity)
        lumen = canvas.ellipse((x, y), (a - 4, b - 4), 16, angle=-0.4, within=cavity)
        if lumen is not None:
            box, alpha = lumen
            canvas.blend(alpha * canvas.coverage(canvas.y[box] - np.float32(y - b * self._air)), -970, box)

    def _liver_and_spleen(self, canvas: Canvas, cavity: Float, level: float) -> None:
        liver, spleen = (108.0, 116.0) if self._contrast else (60.0, 48.0)
        for name, hu in (("liver", liver), ("left lobe", liver), ("spleen", spleen)):
            at = self._bodies[name].at(level)
            if at is None:
                continue
            (x, y), (a, b) = at
            canvas.ellipse((x, y), (a, b), hu, power=2.3, within=cavity)
            if name == "liver":
                vein = hu + (35 if self._contrast else -14)
                for i, phase in enumerate(self._phase):
                    turn, far = phase + canvas.z / 45, 0.18 + 0.09 * i
                    spot = x + a * far * np.cos(turn), y + b * far * np.sin(turn)
                    canvas.ellipse(spot, (4.5, 2.6), vein, turn, soft=2.5, within=cavity)
        at = self._bodies["gallbladder"].at(level)
        if at is not None:
            canvas.ellipse(at[0], at[1], 9)

    def _pancreas(self, canvas: Canvas, level: float) -> None:
        shown = bump(level, 12.75, 13.5, 0.25)
        if shown > 0.02:
            r = 9 * float(np.sqrt(shown))
            line = [(-26.0, -48.0), (0.0, -56.0), (30.0, -48.0), (66.0, -28.0)]
            canvas.curve(line, [r * 1.1, r * 0.8, r * 0.9, r * 0.7], 88 if self._contrast else 36)

    def _kidney(self, canvas: Canvas, name: str, sign: int, level: float) -> None:
        body = self._bodies[name]
        at = body.at(level)
        if at is None:
            return
        (x, y), (a, b) = at
        turn = sign * 0.45
        cortex, medulla = (185.0, 150.0) if self._contrast else (34.0, 30.0)
        canvas.ellipse((x, y), (a, b), cortex, turn)
        canvas.ellipse((x, y), (a - 6.5, b - 6.5), medulla, turn, soft=3)
        length = body.last - body.first
        middle = bump(level, body.first + 0.3 * length, body.first + 0.75 * length, 0.5)
        sinus = (x - sign * 7, y - 5)
        canvas.ellipse(sinus, (a * 0.52 * middle, b * 0.42 * middle), -85, turn)
        if middle > 0.6:
            canvas.ellipse((sinus[0] - sign * 8, sinus[1] - 4), (a * 0.35, b * 0.3), -85, turn)
            canvas.ellipse(sinus, (a * 0.24, b * 0.18), 280 if self._contrast and self._late else 12, turn)
            if abs(level - body.first - length / 2) < 0.25:
                canvas.capsule((sinus[0] - sign * 6, sinus[1] - 4), (sign * 12 - 4, -26), (4.5, 4.0), self._vein)

    def _great_vessels(self, canvas: Canvas, level: float) -> None:
        """Aorta and vena cava in front of the spine, their forks, mesenteric vessels and the diaphragm's crura."""
        x, y = self._spine.centre(min(level, 17.5))
        front = y - self._spine.size(min(level, 17.5))[1]
        if level < self._fork:
            aorta = (x + 9, front - 13)
            canvas.ellipse(aorta, (10.5, 10.5), 46)
            canvas.ellipse(aorta, (9.3, 9.3), self._blood)
            if self._calcified:
                turn = self._phase[0] + canvas.z / 12
                spot = aorta[0] + 9.4 * np.cos(turn), aorta[1] + 9.4 * np.sin(turn)
                canvas.ellipse(spot, (2.2, 1.6), 520)
        else:
            apart, back = min((level - self._fork) * 15, 62), max(level - 17.6, 0) * 11
            for sign in (-1, 1):
                canvas.ellipse((x + 2 + sign * (7 + apart), front - 11 + back), (6.8, 6.8), self._blood)
        if level < self._fork + 0.6:
            canvas.ellipse((x - 18, front - 8 - max(12.0 - level, 0) * 4), (12.5, 9.5), self._vein)
        else:
            apart, back = min((level - self._fork - 0.6) * 14, 56), max(level - 17.6, 0) * 12
            for sign in (-1, 1):
                canvas.ellipse((x - 6 + sign * (9 + apart), front - 3 + back), (8.5, 7.0), self._vein)
        if 13.1 < level < 16:
            canvas.ellipse((x + 6, front - 33), (4.2, 4.2), self._blood)
            canvas.ellipse((x - 8, front - 35), (6.5, 6.0), self._vein)
        if 10 < level < 13.6:
            for sign in (-1, 1):
                canvas.curve([(x + sign * 6, front - 6), (x + sign * 16, front + 6)], [4.0, 4.5], 52)
