"""Ribs and costal cartilage: arcs along the chest wall that fall towards the front and cross many slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hounsfield.phantom.canvas import Canvas
from hounsfield.phantom.shapes import Array, Outline, Tubes, polyline
from hounsfield.phantom.spine import Bone, Spine


@dataclass(frozen=True)
class Ribs:
    """Compact bone, the marrow inside it, and cartilage."""

    compact: Tubes
    marrow: Tubes
    cartilage: Tubes

    @classmethod
    def grow(cls, rng: np.random.Generator, spine: Spine, cage: Outline, first: int, last: int) -> Ribs:
        """Ribs of vertebrae T`first` to T`last` along the inner outline `cage`."""
        lines: list[Array] = []
        thick: list[Array] = []
        cartilage: list[Array] = []
        drop = rng.uniform(0.9, 1.1)
        for number in range(first, last + 1):
            fall = np.interp(number, [1, 3, 6, 9, 10, 11, 12], [30, 62, 92, 96, 88, 62, 36]) * drop
            until = np.interp(number, [1, 4, 7, 9, 10, 11, 12], [0.86, 0.88, 0.83, 0.72, 0.63, 0.43, 0.27])
            if number == 12:
                until *= rng.uniform(0.75, 1.15)
            for sign in (-1, 1):
                along = np.linspace(0, 1, 90)
                angle = np.pi * (1 - (0.09 + (until - 0.09) * along))
                # A rib runs level for its first centimetres, then falls more and more steeply towards the front.
                z = spine.z(number + 0.12) + 3 - fall * along * (0.55 + 0.45 * along)
                level = spine.level(z)
                radius = cage.radius(angle, level) + 5.0
                points = np.stack([sign * radius * np.sin(angle), cage.centre - radius * np.cos(angle), z], axis=1)
                cx, cy = spine.centre(number + 0.1)
                start = np.array(
                    [[cx + sign * 19, cy + 12, spine.z(number + 0.1)], [cx + sign * 26, cy + 22, z[0] + 1]]
                )
                keep = sign * points[:, 0] > 33
                line = polyline(np.concatenate([start, points[keep]]), 1.0)
                lines.append(line)
                thick.append(np.full(len(line), 5.2 if number < 11 else 4.3))
                if number <= 10 and until > 0.5:
                    tip = points[-1]
                    rise = float(np.interp(number, [1, 5, 7, 10], [0, 4, 38, 62]))
                    goal_angle = np.pi * 0.06
                    goal_z = tip[2] + rise
                    ends = np.linspace(0, 1, 40)
                    turn = angle[-1] + (goal_angle - angle[-1]) * ends
                    z_turn = tip[2] + (goal_z - tip[2]) * ends
                    r_turn = cage.radius(turn, spine.level(z_turn)) + 5.0
                    soft = np.stack([sign * r_turn * np.sin(turn), cage.centre - r_turn * np.cos(turn), z_turn], axis=1)
                    cartilage.append(polyline(soft, 1.2))
        return cls(
            Tubes.of(lines, thick),
            Tubes.of(lines, [radius - 2.2 for radius in thick]),
            Tubes.of(cartilage, [np.full(len(line), 4.6) for line in cartilage]),
        )

    def paint(self, canvas: Canvas, bone: Bone) -> None:
        """Paint the sections at the canvas' height."""
        canvas.blend(self.cartilage.coverage(canvas) * np.float32(0.9), 105)
        canvas.blend(self.compact.coverage(canvas), bone.compact * 0.85)
        canvas.blend(self.marrow.coverage(canvas) * np.float32(0.8), bone.spongy)
