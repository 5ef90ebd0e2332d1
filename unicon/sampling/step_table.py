"""Step tables: a path of noise levels for every role.

A schedule of `num_inference_steps` noise levels has the step indices 0 (noisiest) to num_inference_steps - 1
(cleanest). A step table holds the index of every role at every iteration of the sampling loop. The index
`num_inference_steps` is the clean end: it has no noise and timestep 0, and no step starts from it.

Source: arXiv 2410.11439, section 3.3 (sampling paths over the joint noise levels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepTable:
    """A table `indices[iteration][role]`. The caller chooses the order of the roles; by convention the image is first.

    Raises:
        ValueError: The table is empty or ragged, an index is outside 0..num_inference_steps, or a path goes back or
            jumps by more than one index.
    """

    indices: tuple[tuple[int, ...], ...]
    num_inference_steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", tuple(tuple(row) for row in self.indices))
        if self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is at least 1; got {self.num_inference_steps}. 10 to 50 are usual.")
        if not self.indices or len({len(row) for row in self.indices}) != 1 or not self.indices[0]:
            raise ValueError(
                f"A step table has at least one iteration and the same number of roles in each; got {self.indices}."
            )
        for role in range(self.num_roles):
            path = self.path(role)
            jumps = {after - before for before, after in zip(path, path[1:], strict=False)}
            if not all(0 <= index <= self.num_inference_steps for index in path) or not jumps <= {0, 1}:
                raise ValueError(
                    f"The path of a role stays or goes on by one index, within 0..{self.num_inference_steps}; role "
                    f"{role} has {path}. Build the table with estimation, synthesis, joint or coarse."
                )

    @property
    def num_roles(self) -> int:
        return len(self.indices[0])

    def path(self, role: int) -> tuple[int, ...]:
        """The index of one role at every iteration."""
        return tuple(row[role] for row in self.indices)

    def is_clean(self, role: int) -> bool:
        """Whether a role is at the clean end from the first iteration on: it is given and never stepped."""
        return self.indices[0][role] == self.num_inference_steps

    def advances(self, iteration: int, role: int) -> bool:
        """Whether a role is stepped in an iteration: its index changes in the next iteration, or this is the last."""
        if self.indices[iteration][role] == self.num_inference_steps:
            return False
        last = iteration == len(self.indices) - 1
        return last or self.indices[iteration + 1][role] != self.indices[iteration][role]


def path(num_inference_steps: int, start: float) -> tuple[int, ...]:
    """Indices from a start (0 is noise, 1 is the last index) to the end, spread evenly over all iterations."""
    if not 0.0 <= start <= 1.0:
        raise ValueError(
            f"A path starts between 0 (noise) and 1 (last index); got {start}. Noise strength 0.7 is start 0.3."
        )
    first = int(start * (num_inference_steps - 1) + 1e-6)
    count = num_inference_steps - first
    return tuple(first + iteration * count // num_inference_steps for iteration in range(num_inference_steps))


def from_paths(paths: Sequence[Sequence[int]], num_inference_steps: int) -> StepTable:
    """Build a table from one path per role."""
    return StepTable(tuple(zip(*paths, strict=True)), num_inference_steps)


def clean_path(num_inference_steps: int) -> tuple[int, ...]:
    """A path that stays at the clean end, for an image or condition that is given exactly."""
    return (num_inference_steps,) * num_inference_steps


def estimation(num_inference_steps: int, num_conditions: int = 1, *, clean_image: bool = False) -> StepTable:
    """Image -> conditions: conditions go from 0 to the end; the image stays at the last index, or at the clean end.

    With few steps and trailing spacing, the last index is far from clean; use `clean_image`.
    """
    image = clean_path(num_inference_steps) if clean_image else [num_inference_steps - 1] * num_inference_steps
    return from_paths([image, *[path(num_inference_steps, 0.0)] * num_conditions], num_inference_steps)


def synthesis(num_inference_steps: int, num_conditions: int = 1, *, clean_conditions: bool = False) -> StepTable:
    """Conditions -> image: the image goes from 0 to the end; conditions stay at the last index, or at the clean end.

    With few steps and trailing spacing, the last index is far from clean; use `clean_conditions`.
    """
    return completion(num_inference_steps, num_given=num_conditions, clean_given=clean_conditions)


def joint(num_inference_steps: int, num_conditions: int = 1) -> StepTable:
    """Image and conditions together from noise."""
    return completion(num_inference_steps, num_generated=num_conditions)


def completion(
    num_inference_steps: int, *, num_given: int = 0, num_generated: int = 0, clean_given: bool = True
) -> StepTable:
    """An image and `num_generated` conditions from noise, beside `num_given` conditions that are given.

    With `clean_given`, given conditions stay at the clean end, else at the last index.
    """
    generated = path(num_inference_steps, 0.0)
    given = clean_path(num_inference_steps) if clean_given else (num_inference_steps - 1,) * num_inference_steps
    return from_paths([generated, *[given] * num_given, *[generated] * num_generated], num_inference_steps)


def coarse(num_inference_steps: int, strength: float, num_conditions: int = 1) -> StepTable:
    """Synthesis from rough conditions, which start part-way at a noise strength in [0, 1].

    Strength 0 is the last index, which with few steps is still noisy, unlike `synthesis(clean_conditions=True)`.
    """
    condition = path(num_inference_steps, 1.0 - strength)
    return from_paths([path(num_inference_steps, 0.0), *[condition] * num_conditions], num_inference_steps)
