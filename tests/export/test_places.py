"""What is published does not tell where files of a machine lie."""

from __future__ import annotations

import pytest

from clever_export.places import public_photos


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("/home/me/secret/birds/train", "birds/train"),
        ("/home/me/secret/birds", "birds"),
        ("/home/me/birds/train*.parquet", "birds/train*.parquet"),
        (r"C:\Users\me\birds\val", "birds/val"),
        ("~/train.parquet", "train.parquet"),
        ("../../birds/test", "birds/test"),
        ("../validation", "validation"),
        ("user/photos", "user/photos"),
        ("user/photos:train", "user/photos:train"),
        ("tiny-imagenet-100/train.parquet", "tiny-imagenet-100/train.parquet"),
        ("Other Photos", "Other Photos"),
    ],
)
def test_photos_keep_the_name_that_tells_no_place(name: str, public: str) -> None:
    assert public_photos(name) == public
