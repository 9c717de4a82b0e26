"""Small bowel, colon and mesenteric vessels, with fluid, oral contrast, stool and gas."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from hounsfield.phantom.canvas import Canvas
from hounsfield.phantom.fields import Float, Texture
from hounsfield.phantom.shapes import Array, Outline, Tubes, polyline, tree
from hounsfield.phantom.spine import Spine

_ORAL_CONTRAST, _FLUID, _GAS = 230.0, 22.0, -940.0


class Bowel:
    """The intestines of one patient inside the outline `cavity`."""

    def __init__(self, rng: np.random.Generator, spine: Spine, cavity: Outline, contrast: bool, blood: float) -> None:
        self._spine, self._cavity = spine, cavity
        self._wall = 70.0 if contrast else 42.0
        self._blood = blood * 0.75
        self._stool, self._gas = float(rng.uniform(-20, 45)), float(rng.uniform(0.0, 0.9))
        self._loops = self._small_bowel(rng)
        self._colon, self._lumen = self._large_bowel(rng)
        self._vessels = self._mesentery(rng)
        self._texture = Texture(rng, 5.0)

    def paint(self, canvas: Canvas, cavity: Float) -> None:
        """Paint the sections at the canvas' height inside the coverage `cavity`."""
        for tubes, hu in zip(self._loops, (self._wall, _FLUID, _ORAL_CONTRAST, _GAS), strict=True):
            canvas.blend(tubes.coverage(canvas) * cavity, hu)
        canvas.blend(self._colon.coverage(canvas) * cavity, self._wall)
        grain = self._texture(canvas.x, canvas.y, canvas.z)
        floating = np.clip(0.5 - (canvas.y + 40) / 90, 0.1, 1.2)
        gas = np.clip((grain - 1.6 + self._gas + floating) * 2, 0, 1)
        canvas.blend(self._lumen.coverage(canvas) * cavity, self._stool + 12 * grain - 850 * gas)
        canvas.blend(self._vessels.coverage(canvas) * cavity, self._blood)

    def _small_bowel(self, rng: np.random.Generator) -> tuple[Tubes, Tubes, Tubes, Tubes]:
        """Winding loops: their outside, lumen with fluid, lumen with oral contrast, and gas."""
        oral = rng.random() < 0.25
        lines: tuple[list[Array], ...] = ([], [], [], [])
        radii: tuple[list[Array], ...] = ([], [], [], [])
        for _ in range(int(rng.integers(11, 18))):
            line = self._loop(rng)
            along = np.arange(len(line))
            radius = rng.uniform(8.5, 13.5) * (1 + 0.16 * np.sin(along / rng.uniform(4, 9)))
            lumen = 2 if oral and rng.random() < 0.7 else 1
            for kind, thinner in ((0, 0.0), (lumen, 2.3)):
                lines[kind].append(line)
                radii[kind].append(radius - thinner)
            bubbles = np.sin(along / rng.uniform(6, 14) + rng.uniform(0, 6)) > 0.7
            if rng.random() < 0.4 and bubbles.any():
                lines[3].append(line[bubbles] - np.array([0.0, 3.0, 0.0]))
                radii[3].append(radius[bubbles] - 5.0)
        outside, fluid, contrast, gas = (Tubes.of(*pair) for pair in zip(lines, radii, strict=True))
        return outside, fluid, contrast, gas

    def _loop(self, rng: np.random.Generator) -> Array:
        corners = []
        level = float(rng.uniform(13.6, 20.8))
        side, deep = float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0, 1))
        for _ in range(8):
            half, front, _ = self._cavity.bounds(level)
            y = front + 20 + deep * max(-56 - front, 12)
            corners.append((side * (half - 42), y, self._spine.z(level)))
            level = float(np.clip(level + rng.normal(0, 0.55), 13.4, 21.2))
            side = float(np.clip(side + rng.normal(0, 0.45), -1, 1))
            deep = float(np.clip(deep + rng.normal(0, 0.4), 0, 1))
        return polyline(np.asarray(PchipInterpolator(range(8), corners)(np.linspace(0, 7, 60))), 2.0)

    def _large_bowel(self, rng: np.random.Generator) -> tuple[Tubes, Tubes]:
        """Ascending, transverse, descending and sigmoid colon: outside and lumen."""
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
        line = polyline(np.array([(x, y, self._spine.z(level)) for x, y, level in corners]), 2.0)
        along = np.arange(len(line)) * 2.0
        radius = np.interp(along / along[-1], [0, 0.25, 0.5, 0.7, 1], [22, 19, 17, 13, 12]) * rng.uniform(0.85, 1.1)
        radius = radius * (1 + 0.14 * np.sin(along / 7.0))
        return Tubes.of([line], [radius]), Tubes.of([line], [radius - 2.4])

    def _mesentery(self, rng: np.random.Generator) -> Tubes:
        goals = []
        for _ in range(150):
            level = float(rng.uniform(13.6, 19.5))
            half, front, _ = self._cavity.bounds(level)
            goals.append((rng.uniform(-0.75, 0.75) * half, rng.uniform(front + 12, -32), self._spine.z(level)))
        return tree(rng, np.array([0.0, -58.0, self._spine.z(13.3)]), np.array(goals), 0.75)
