"""The joints of people in a scene, as JSON in a tar."""

import json

import numpy as np

from unicon.pose import JOINTS


def encode_people(people: np.ndarray) -> bytes:
    """People (P, J, 3) as `KEY.people.json`; nobody becomes one person whose joints are all invisible.

    Without that, `datasets` takes a shard that begins with empty lists for one of lists of nothing, and fails later.
    """
    listed = people if len(people) else np.zeros((1, len(JOINTS), 3))
    return json.dumps(
        [
            {
                name: [round(float(x), 2), round(float(y), 2), int(seen)]
                for name, (x, y, seen) in zip(JOINTS, person, strict=True)
            }
            for person in listed
        ]
    ).encode()


def decode_people(content: bytes) -> np.ndarray:
    """The people in view (P, J, 3) float32 of a `KEY.people.json`."""
    people = [[person[name] for name in JOINTS] for person in json.loads(content)]
    joints = np.array(people, np.float32).reshape(-1, len(JOINTS), 3)
    return joints[joints[..., 2].any(1)]
