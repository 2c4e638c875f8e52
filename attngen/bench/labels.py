"""Where labels of points go: near their own point, over nothing else, not over one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

RADII = (9, 14, 20, 28, 38, 50, 64, 80, 100, 125, 155)  # pixels between a point and its label
ANGLES = range(0, 360, 15)
GAP = 3.0  # pixels around a label
SWEEPS = 4  # in which each label may find a better place, given the others'
ON_LABEL, ON_LINE, ON_MARK, ASTRAY, CROSSED = 1000.0, 300.0, 200.0, 60.0, 30.0  # what a fault costs, in pixels
STEP = 4.0  # pixels between the places at which a line is looked at


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box, gap: float = 0.0) -> bool:
        return (
            self.x0 < other.x1 + gap
            and other.x0 < self.x1 + gap
            and self.y0 < other.y1 + gap
            and other.y0 < self.y1 + gap
        )

    def holds(self, point: Point, gap: float = 0.0) -> bool:
        x, y = point
        return self.x0 - gap < x < self.x1 + gap and self.y0 - gap < y < self.y1 + gap

    def inside(self, other: Box) -> bool:
        return other.x0 <= self.x0 and self.x1 <= other.x1 and other.y0 <= self.y0 and self.y1 <= other.y1

    def nearest(self, point: Point) -> Point:
        """The place in the box that is nearest to ``point``."""
        return min(max(point[0], self.x0), self.x1), min(max(point[1], self.y0), self.y1)


def place(
    points: Sequence[Point], sizes: Sequence[Point], obstacles: Sequence[Box], frame: Box, texts: Sequence[Box] = ()
) -> list[Box]:
    """A box of each size for each point, inside ``frame`` and off the ``texts`` that are there already.

    The crowded points choose first, and all again when the others have chosen.
    """

    def crowd(n: int) -> float:
        return sum(1 / (1 + math.dist(points[n], point)) for point in points)

    order = sorted(range(len(points)), key=crowd, reverse=True)
    places: dict[int, Box] = {}
    for _ in range(SWEEPS):
        for n in order:
            others = {m: box for m, box in places.items() if m != n}
            lines = [sample for m, box in others.items() for sample in leader(points[m], box)]
            rivals = [point for m, point in enumerate(points) if m != n]
            best = math.inf
            for candidate in _candidates(points[n], sizes[n], frame):
                if math.dist(points[n], candidate.nearest(points[n])) >= best:
                    break
                cost = _cost(candidate, points[n], rivals, [*texts, *others.values()], lines, obstacles, best)
                if cost < best:
                    best, places[n] = cost, candidate
    return [places[n] for n in range(len(points))]


def leader(point: Point, box: Box) -> list[Point]:
    """Places on the line from a point to its label."""
    return samples(point, box.nearest(point))


def samples(start: Point, end: Point) -> list[Point]:
    """Places on a line, a few pixels apart."""
    steps = math.ceil(math.dist(start, end) / STEP)
    return [
        (start[0] + (end[0] - start[0]) * n / steps, start[1] + (end[1] - start[1]) * n / steps)
        for n in range(1, steps + 1)
    ]


def _candidates(point: Point, size: Point, frame: Box) -> list[Box]:
    """Boxes around the point, the nearest first."""
    boxes = []
    for radius in RADII:
        for angle in ANGLES:
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x = point[0] + radius * across - size[0] * (1 - across) / 2
            y = point[1] + radius * up - size[1] * (1 - up) / 2
            box = Box(x, y, x + size[0], y + size[1])
            if box.inside(frame):
                boxes.append(box)
    return sorted(boxes, key=lambda box: math.dist(point, box.nearest(point)))


def _cost(
    box: Box,
    point: Point,
    rivals: Sequence[Point],
    others: Sequence[Box],
    lines: Sequence[Point],
    obstacles: Sequence[Box],
    budget: float,
) -> float:
    """Distance and faults; some of them uncounted where it is past ``budget`` anyway."""
    cost = away = math.dist(point, box.nearest(point))
    cost += ASTRAY * sum(math.dist(rival, box.nearest(rival)) <= away + GAP for rival in rivals)
    cost += ON_LABEL * sum(box.overlaps(other, GAP) for other in others)
    cost += ON_LINE * any(box.holds(place, GAP) for place in lines)
    cost += ON_MARK * sum(box.overlaps(obstacle, 1.0) for obstacle in obstacles)
    if cost >= budget:
        return cost
    own = leader(point, box)
    cost += ON_LINE * any(other.holds(sample, GAP) for sample in own for other in others)
    return cost + CROSSED * sum(any(mark.holds(sample) for sample in own) for mark in obstacles)
