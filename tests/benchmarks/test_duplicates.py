"""The benchmark of near duplicates on a few images: copies are found, other images are no copies."""

from __future__ import annotations

from benchmarks.duplicates import of_images, of_random_signatures, photographs, scenes, textures, tiles


def test_copies_are_found_and_other_images_are_not() -> None:
    photos = [next(photographs())]
    found = of_images(
        {
            "photographs": photos,
            "tiles": list(tiles(photos)),
            "scenes": list(scenes(12, 64)),
            "textures": [*textures(4)],
        }
    )
    assert found["originals_called_duplicates_percent"] == 0
    assert all(shares["all"] >= 96 for shares in found["found_percent"].values())
    assert found["found_percent"]["JPEG 75"]["all"] == found["found_percent"]["half size"]["all"] == 100


def test_copies_among_random_signatures() -> None:
    found = of_random_signatures(3_000)
    assert found["false_pairs"] == 0 and found["planted_found_percent"] >= 96
