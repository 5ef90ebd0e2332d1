"""Ray casting of a scene: the image, and its exact depth, edges and visible things.

Shapes: H W pixels, N rays; vectors are (3, N) float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unicon.pose import JOINTS, draw_pose
from unicon.scenes.caption import caption
from unicon.scenes.geometry import EPSILON_M
from unicon.scenes.layout import YARD, Light, Scene, Thing
from unicon.scenes.mannequin import Mannequin

MAX_FACES = 32
"""Upper limit of the number of smooth surfaces of a solid."""
SKY, SHELL = -2, -1
"""Owners of pixels that no thing covers."""


@dataclass(frozen=True)
class Rendering:
    """An image and its ground truth."""

    image: np.ndarray
    """(H, W, 3) uint8 sRGB."""
    depth_m: np.ndarray
    """(H, W) float32 distance along the optical axis, in meters; `inf` for the sky."""
    edges: np.ndarray
    """(H, W) bool: whether the pixel's surface differs from that of the pixel to the right or below."""
    owner: np.ndarray
    """(H, W) int16: index of the visible thing, or `SHELL` or `SKY`."""
    people: np.ndarray
    """(P, J, 3) float32 joints of the mannequins, `unicon.pose.JOINTS`: x, y in pixels, and 1 if visible."""
    caption: str
    """English sentence that names what is visible, nearest first, and the place."""

    @property
    def pose(self) -> np.ndarray:
        """Drawing of the people's joints and limbs, (H, W, 3) uint8."""
        return draw_pose(self.people, (self.image.shape[1], self.image.shape[0]))

    @property
    def inverse_depth(self) -> np.ndarray:
        """Relative inverse depth, (H, W) float32: 0 is the farthest visible point (the sky), 1 the nearest."""
        inverse = 1 / self.depth_m
        return (inverse - inverse.min()) / max(float(inverse.max() - inverse.min()), 1e-6)


class _View(NamedTuple):
    """The first hits of N rays."""

    distance_m: np.ndarray
    owner: np.ndarray
    face: np.ndarray
    normal: np.ndarray


def render(scene: Scene, width_px: int = 128, height_px: int = 128, supersampling: int = 2) -> Rendering:
    """Render one scene.

    Args:
        scene: The scene.
        width_px: Width of the image.
        height_px: Height of the image.
        supersampling: Rays per pixel along each axis for the colors. Depth, edges and owners always come from one ray
            through the center of each pixel, so that they are exact.
    """
    size = (height_px, width_px)
    direction, along_axis = _camera_rays(scene, width_px, height_px)
    origin = scene.camera.position_m.astype(np.float32)[:, None]
    center = _cast(scene, origin, direction)
    depth = (center.distance_m * along_axis).reshape(size).astype(np.float32)
    owner = center.owner.reshape(size)
    fine, _ = _camera_rays(scene, width_px * supersampling, height_px * supersampling)
    color = _shade(scene, origin, fine, _cast(scene, origin, fine))
    blocks = color.reshape(3, height_px, supersampling, width_px, supersampling).mean((2, 4))
    return Rendering(
        image=(_to_srgb(blocks).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8),
        depth_m=depth,
        edges=_edges(owner.astype(np.int32) * MAX_FACES + center.face.reshape(size)),
        owner=owner,
        people=_people(scene, owner),
        caption=caption(scene, owner, depth),
    )


def _people(scene: Scene, owner: np.ndarray) -> np.ndarray:
    """Joints (P, J, 3) of the visible mannequins. A joint behind another thing is not visible."""
    height, width = owner.shape
    scale = max(width, height) / (2 * np.tan(np.deg2rad(scene.camera.field_of_view_deg) / 2))
    people = []
    for index, thing in enumerate(scene.things):
        if not isinstance(thing.solid, Mannequin):
            continue
        world = thing.position_m + thing.solid.joints_m @ thing.rotation.T
        right, forward, up = scene.camera.rotation.T @ (world - scene.camera.position_m).T
        ahead = np.maximum(forward, 1e-3)
        x, y = width / 2 + scale * right / ahead, height / 2 - scale * up / ahead
        inside = (forward > 0.1) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        column, row = (np.where(inside, v, 0).astype(int) for v in (x, y))
        seen = inside & (owner[row, column] == index)
        if seen.any():
            people.append(np.stack([x, y, seen], -1))
    return np.array(people, np.float32).reshape(-1, len(JOINTS), 3)


def _camera_rays(scene: Scene, width_px: int, height_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit directions (3, N) of the pixel centers in the world, and their cosine to the optical axis (N,)."""
    reach = np.tan(np.deg2rad(scene.camera.field_of_view_deg) / 2) / max(width_px, height_px)
    across = (2 * np.arange(width_px) + 1 - width_px) * reach
    down = (2 * np.arange(height_px) + 1 - height_px) * reach
    x, z = np.meshgrid(across, -down)
    local = np.stack([x.ravel(), np.ones(x.size), z.ravel()])
    length = np.linalg.norm(local, axis=0)
    return (scene.camera.rotation @ (local / length)).astype(np.float32), (1 / length).astype(np.float32)


def _cast(scene: Scene, origin: np.ndarray, direction: np.ndarray) -> _View:
    """Find the first surface along each ray; `origin` is (3, 1) or (3, N)."""
    hits = scene.shell.intersect(np.broadcast_to(origin, direction.shape), direction)
    view = _View(hits.distance_m.copy(), np.full(len(hits.distance_m), SHELL, np.int16), hits.face, -hits.normal)
    if scene.place == YARD:
        height = origin[2] + view.distance_m * direction[2] + scene.shell.half_size_m[2]
        open_air = height > scene.wall_height_m
        view.distance_m[open_air] = np.inf
        view.owner[open_air] = SKY
        view.face[open_air] = 0
    for index, thing in enumerate(scene.things):
        _cast_thing(view, index, thing, origin, direction)
    return view


def _cast_thing(view: _View, index: int, thing: Thing, origin: np.ndarray, direction: np.ndarray) -> None:
    """Write the hits of one thing into the view where they are nearer."""
    rays = _near_ball(thing, origin, direction)
    if not rays.size:
        return
    local_origin, local_direction = _to_local(thing, origin, direction, rays)
    hits = thing.solid.intersect(local_origin, local_direction)
    nearer = hits.distance_m < view.distance_m[rays]
    won = rays[nearer]
    view.distance_m[won] = hits.distance_m[nearer]
    view.owner[won] = index
    view.face[won] = hits.face[nearer]
    view.normal[:, won] = thing.rotation.astype(np.float32) @ hits.normal[:, nearer]


def _near_ball(thing: Thing, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Indices of the rays that pass through the bounding ball of a thing."""
    to_center = thing.position_m.astype(np.float32)[:, None] - origin
    along = (to_center * direction).sum(0)
    off_axis = (to_center * to_center).sum(0) - along * along
    radius = thing.solid.bounding_radius_m
    return np.flatnonzero((off_axis < radius * radius) & (along > -radius))


def _to_local(
    thing: Thing, origin: np.ndarray, direction: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    to_local = thing.rotation.T.astype(np.float32)
    start = origin if origin.shape[1] == 1 else origin[:, rays]
    shifted = to_local @ (start - thing.position_m.astype(np.float32)[:, None])
    return np.broadcast_to(shifted, (3, len(rays))), to_local @ direction[:, rays]


def _shade(scene: Scene, origin: np.ndarray, direction: np.ndarray, view: _View) -> np.ndarray:
    """Linear RGB (3, N): texture times ambient and Lambertian light with shadows, behind haze; or the sky."""
    solid = np.flatnonzero(view.owner != SKY)
    color = np.empty_like(direction)
    horizon = np.clip(direction[2], 0, 1)
    color[:] = scene.sky.astype(np.float32)[:, None] * (1.1 - 0.5 * horizon)
    point = origin + view.distance_m[solid] * direction[:, solid]
    normal = view.normal[:, solid]
    received = np.repeat(scene.ambient.astype(np.float32)[:, None], len(solid), 1)
    for light in scene.lights:
        received += _light(scene, light, point, normal)
    kept = np.exp(-scene.haze_per_m * view.distance_m[solid]).astype(np.float32)
    haze = np.array(scene.haze_color, np.float32)[:, None]
    color[:, solid] = _albedo(scene, view.owner[solid], point, normal) * received * kept + haze * (1 - kept)
    return color


def _light(scene: Scene, light: Light, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Light (3, N) at surface points: cosine times a soft falloff, zero in shadow."""
    to_light = light.position_m.astype(np.float32)[:, None] - point
    distance = np.linalg.norm(to_light, axis=0)
    to_light /= distance
    cosine = np.maximum((to_light * normal).sum(0), 0)
    strength = cosine * 2 / (1 + 0.25 * distance * distance)
    if light.casts_shadow:
        strength[_shadowed(scene, point + normal * (4 * EPSILON_M), to_light, distance)] = 0
    return light.color.astype(np.float32)[:, None] * strength


def _shadowed(scene: Scene, point: np.ndarray, to_light: np.ndarray, distance_m: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a thing is between the point and the light."""
    blocked = np.zeros(point.shape[1], bool)
    for thing in scene.things:
        rays = _near_ball(thing, point, to_light)
        if rays.size:
            hits = thing.solid.intersect(*_to_local(thing, point, to_light, rays))
            blocked[rays] |= hits.distance_m < distance_m[rays]
    return blocked


def _albedo(scene: Scene, owner: np.ndarray, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Texture colors (3, N) at surface points."""
    color = np.empty_like(point)
    walls, floor, ceiling = scene.shell_textures
    shell = owner == SHELL
    for texture, chosen in (
        (floor, shell & (normal[2] > 0.5)),
        (ceiling, shell & (normal[2] < -0.5)),
        (walls, shell & (np.abs(normal[2]) <= 0.5)),
    ):
        color[:, chosen] = texture.paint(point[:, chosen], normal[:, chosen])
    for index, thing in enumerate(scene.things):
        chosen = owner == index
        if chosen.any():
            to_local = thing.rotation.T.astype(np.float32)
            local = to_local @ (point[:, chosen] - thing.position_m.astype(np.float32)[:, None])
            color[:, chosen] = thing.texture.paint(local, to_local @ normal[:, chosen])
    return color


def _edges(surface: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose surface number differs from that of the right or lower neighbor."""
    edges = np.zeros(surface.shape, bool)
    edges[:, :-1] |= surface[:, :-1] != surface[:, 1:]
    edges[:-1] |= surface[:-1] != surface[1:]
    return edges


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light to sRGB (IEC 61966-2-1), clipped to [0, 1]."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
