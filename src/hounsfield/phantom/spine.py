"""The spine from C7 to the coccyx: vertebrae that differ by level, discs, canal, processes and sacrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hounsfield.phantom.canvas import Canvas, Point, ellipse_distance
from hounsfield.phantom.fields import Float, Texture
from hounsfield.phantom.shapes import Array, Track, bump

LEVELS = ("C7", *(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)), *(f"S{i}" for i in range(1, 6)))
"""Level numbers are indices here, plus the part of the vertebra (body, then disc) from its top: 15.4 is mid-L3."""
L3 = LEVELS.index("L3")
S1 = LEVELS.index("S1")
BODY_SHARE = 0.79
"""Part of a level's height that is the vertebral body; the rest is the disc below it."""

_HEIGHT = [16, 18, 19, 20, 20, 21, 21.5, 22, 22.5, 23.5, 25, 26.5, 29, 32, 34, 35.5, 36, 36, 31, 25, 21, 18, 16]
_SIZE = Track(  # level, then half width, half depth of the body, length of the transverse processes from the midline
    [0, 1, 3, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22.9],
    [
        [14, 8.5, 32],
        [15, 9, 36],
        [14, 10, 34],
        [14.5, 12.5, 32],
        [16, 14.5, 30],
        [17, 15, 27],
        [18.5, 15.5, 23],
        [20, 16, 20],
        [21, 16.5, 33],
        [22, 17, 40],
        [23, 17.5, 52],
        [24.5, 17.5, 42],
        [26.5, 17.5, 46],
        [27, 17, 40],
        [20, 12, 10],
        [7, 6, 5],
    ],
)


@dataclass(frozen=True)
class Bone:
    """Attenuation of bone in HU: spongy, compact, and disc."""

    spongy: float
    compact: float
    disc: float


class Spine:
    """Heights, curvature and bone density of one patient; level L3's top lies near z = 0."""

    def __init__(self, rng: np.random.Generator) -> None:
        heights = np.array(_HEIGHT) * rng.uniform(0.9, 1.1) * rng.normal(1, 0.025, len(_HEIGHT)).clip(0.94, 1.06)
        tops = -np.concatenate([[0], np.cumsum(heights)])
        self._tops = tops - tops[L3]
        self._numbers = np.arange(len(self._tops), dtype=np.float64)
        curve, lordosis = rng.uniform(0.5, 1.3), rng.uniform(0.6, 1.3)
        self._y = Track(
            [0, 3, 7, 12, 15, 17, 18, 20, 23],
            [[v] for v in (4, 8 * curve, 12 * curve, 2, -9 * lordosis, -6 * lordosis, 2, 24, 34)],
        )
        bend, phase = rng.normal(0, 3.0), rng.uniform(0, 2 * np.pi)
        self._x = Track(list(range(0, 24, 2)), [[bend * np.sin(phase + i / 4.0)] for i in range(0, 24, 2)])
        self._size = rng.uniform(0.92, 1.1)
        self._texture = Texture(rng, 3.5)
        density = rng.uniform(0.65, 1.25)
        self.bone = Bone(150 * density, 470 * (0.6 + 0.4 * density), rng.uniform(70, 105))
        self._process = rng.normal(1, 0.035, (2, 24)).clip(0.92, 1.08)

    def z(self, level: float) -> float:
        """Height in mm of a level number."""
        return float(np.interp(level, self._numbers, self._tops))

    def level(self, z: float | Array) -> Array:
        """Level number at a height; beyond the ends it goes on at 20 mm a level."""
        inside = np.interp(-np.asarray(z), -self._tops, self._numbers)
        below, above = np.maximum(self._tops[-1] - z, 0) / 20, np.maximum(z - self._tops[0], 0) / 18
        return np.asarray(inside + below - above)

    def centre(self, level: float) -> tuple[float, float]:
        """Centre of the vertebral body in mm."""
        return float(self._x(level)[0]), float(self._y(level)[0])

    def body_span(self, index: int) -> tuple[float, float]:
        """Heights in mm of the lower and the upper end plate of vertebra `index`."""
        top, bottom = self._tops[index], self._tops[index + 1]
        return float(top + BODY_SHARE * (bottom - top)), float(top)

    def paint(self, canvas: Canvas) -> Float:
        """Paint the spine at the canvas' height; returns the coverage of the vertebral body (0 in discs), full size."""
        level = float(self.level(canvas.z))
        cover = np.zeros(canvas.shape, np.float32)
        if level > 23.2:
            return cover
        cx, cy = self.centre(level)
        if level < S1 + 0.1:
            self._processes(canvas, level, cx, cy)
        else:
            self._sacrum(canvas, level, cx, cy)
        half, depth, _ = self.size(level)
        box = canvas.box(cx, cy, half + 4, depth + 4)
        x, y = canvas.x[box], canvas.y[box]
        if x.size == 0:
            return cover
        # The end plates follow the curve of the spine, so a slice meets them at different heights front and back.
        above, below = level - 0.3, level + 0.3
        slope = (self.centre(below)[1] - self.centre(above)[1]) / (self.z(above) - self.z(below))
        fine = self.level(canvas.z - slope * (y - cy).astype(np.float64) * 0.9)
        part = (fine - np.floor(fine)) / (0.97 if level > S1 + 1 else BODY_SHARE)
        height = (self.z(np.floor(level)) - self.z(np.floor(level) + 1)) * BODY_SHARE
        plate = (np.minimum(part, 1 - part) * height).astype(np.float32)
        inside = np.clip(0.5 + plate / 1.5, 0, 1)
        waist = np.float32(1) - np.float32(0.09) * np.sin(np.pi * np.clip(part, 0, 1)).astype(np.float32)
        body = ellipse_distance(x, y, (cx, cy), (half, depth), power=2.5) + (1 - waist) * half
        dent = ellipse_distance(x, y, (cx, cy + depth + 7), (8, 8.5))
        body = np.maximum(body, -dent)
        bone = canvas.coverage(body) * inside
        canvas.blend(canvas.coverage(body + 0.5) * (1 - inside), self.bone.disc, box)
        canvas.blend(bone, self.bone.compact, box)
        spongy = canvas.coverage(body + 1.8, 1.5) * np.clip((plate - 1.2) / 1.5, 0, 1)
        canvas.blend(spongy, self.bone.spongy * (1 + 0.16 * self._texture(x, y, canvas.z)), box)
        cover[box] = bone
        canal = (cx, cy + depth + (9.0 if level < S1 else 7.0))
        wide, deep = (11.5, 8.0) if level > 11 else (9.5, 8.5)
        if level > S1:
            wide, deep = 11.5 - 2 * (level - S1), max(6 - 1.2 * (level - S1), 0)
        canvas.ellipse(canal, (wide, deep), -30)
        canvas.ellipse(canal, (wide - 2, deep - 1.5), 22)
        if level < 13.5:
            canvas.ellipse(canal, (5.5, 4.2), 42)
        return cover

    def size(self, level: float) -> tuple[float, float, float]:
        half, depth, process = _SIZE(level)
        # The process length belongs to a whole vertebra: it must not drift between the top of one and of the next.
        process = _SIZE(np.floor(level) + 0.3)[2]
        return float(half) * self._size, float(depth) * self._size, float(process) * self._size

    def _processes(self, canvas: Canvas, level: float, cx: float, cy: float) -> None:
        part, index = level % 1, int(level) if level > 0 else 0
        half, depth, reach = self.size(level)
        lumbar = float(np.clip(level - 12.2, 0, 1))
        back = cy + depth + 9
        spongy, compact = self.bone.spongy * 1.3, self.bone.compact

        def bar(start: Point, end: Point, radii: Point, amount: float) -> None:
            if amount > 0.02:
                canvas.capsule(start, end, radii, compact, strength=amount)
                inner = (radii[0] - 1.6, radii[1] - 1.6)
                canvas.capsule(start, end, (max(inner[0], 0.4), max(inner[1], 0.4)), spongy, strength=amount)

        side = 13.5 + 3.5 * lumbar
        for sign in (-1, 1):
            ends = cx + sign * side
            bar((cx + sign * half * 0.62, cy + depth * 0.6), (ends, back - 2), (4.6, 4.2), bump(part, 0.06, 0.46, 0.1))
            facet = bump(part, 0.62, 1.3, 0.12) + bump(part, -0.3, 0.16, 0.12)
            bar((ends + sign * 1.0, back - 1.5), (ends + sign * 2.5, back + 4), (4.2 + lumbar, 3.8 + lumbar), facet)
            bar((ends - sign * 3.5, back + 5.0), (ends - sign * 1.5, back + 8.0), (3.4, 3.8), facet)
            length = reach * self._process[(sign + 1) // 2, index]
            slant = 2.0 + 12 * (1 - lumbar)
            thick = 4.4 if index == 17 else 2.5 + 0.9 * (1 - lumbar)
            span = (0.12, 0.44) if index != 17 else (0.08, 0.5)
            bar((ends, back), (cx + sign * length, back + slant), (thick + 0.8, thick), bump(part, *span, 0.08))
            bar((ends - sign, back + 4), (cx + sign * 1.5, back + 13), (3.2, 3.0), bump(part, 0.3, 0.92, 0.12))
        spine_length = 18 + 8 * lumbar
        low = bump(part, 0.42, 1.3, 0.14) + bump(part, -0.3, 0.08 + 0.3 * (1 - lumbar), 0.1)
        bar((cx, back + 12), (cx, back + 12 + spine_length), (2.8, 3.2 + lumbar), min(low, 1.0))

    def _sacrum(self, canvas: Canvas, level: float, cx: float, cy: float) -> None:
        down = level - S1
        wing = float(np.interp(down, [0, 0.4, 1, 2, 3, 4], [40, 52, 50, 40, 24, 10])) * self._size
        thick = float(np.interp(down, [0, 0.4, 1, 2, 3, 4, 5], [9, 13, 13, 10, 7, 6, 4]))
        for sign in (-1, 1):
            start, end = (cx + sign * 14, cy + 5), (cx + sign * (wing - thick * 0.6), cy + 12)
            canvas.capsule(start, end, (thick, thick * 0.75), self.bone.compact * 0.9)
            canvas.capsule(start, end, (thick - 2, thick * 0.75 - 1.8), self.bone.spongy * 0.8)
            hole = bump(level % 1, 0.35, 0.85, 0.1)
            if hole > 0.05 and down < 4:
                for y in (cy - 3, cy + 17):
                    canvas.ellipse((cx + sign * 19, y), (4.5, 4), -40, strength=hole)
        canvas.capsule((cx, cy + 20), (cx, cy + 26), (4, 3.5), self.bone.compact, strength=max(0.0, 1 - down / 4))
