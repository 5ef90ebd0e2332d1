"""The joints of people in a scene, as JSON in a tar.

Tested in tests/jobs/test_render_scenes.py and tests/jobs/test_evaluate.py.
"""

import json

import numpy as np

from unicon.pose import JOINTS


def encode_people(people: np.ndarray) -> bytes:
    """Encode people (P, J, 3) as `KEY.people.json`; without people, one person with only invisible joints is written.

    Otherwise, `datasets` infers lists of nulls from a shard that starts with empty lists, and fails later.
    """
    listed = people if len(people) else np.zeros((1, len(JOINTS), 3))
    return json.dumps(
        [
            {
                name: [round(float(x), 2), round(float(y), 2), int(is_visible)]
                for name, (x, y, is_visible) in zip(JOINTS, person, strict=True)
            }
            for person in listed
        ]
    ).encode()


def decode_people(content: bytes) -> np.ndarray:
    """Decode the visible people (P, J, 3) float32 of a `KEY.people.json`."""
    people = [[person[name] for name in JOINTS] for person in json.loads(content)]
    joints = np.array(people, np.float32).reshape(-1, len(JOINTS), 3)
    return joints[joints[..., 2].any(1)]
