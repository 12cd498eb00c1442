"""The embedding function in the real LanceDB: one column a part, known again by another program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clever_hub
from clever_hub.jobs.default import default_model

lancedb = pytest.importorskip("lancedb", reason="needs the extra search")


@pytest.fixture
def table(model_folder: Path, photos: dict[str, Path], tmp_path: Path) -> Any:
    from lancedb.embeddings import get_registry
    from lancedb.pydantic import LanceModel, Vector

    import clever_hub.integrations  # noqa: F401

    kind = get_registry().get("clever_hub.integrations")
    content = kind.create(name=str(model_folder))
    pose = kind.create(name=str(model_folder), part="equivariant")

    class Photo(LanceModel):  # type: ignore[misc, unused-ignore]
        path: str = content.SourceField()
        same_path: str = pose.SourceField()
        invariant: Vector(content.ndims()) = content.VectorField()  # type: ignore[valid-type]
        equivariant: Vector(pose.ndims()) = pose.VectorField()  # type: ignore[valid-type]

    made = lancedb.connect(str(tmp_path / "db")).create_table("photos", schema=Photo)
    made.add([{"path": str(path), "same_path": str(path)} for path in photos.values()])
    return made


def test_both_parts_are_filled_and_found(
    table: Any, model_folder: Path, photos: dict[str, Path]
) -> None:
    expected = clever_hub.from_pretrained(model_folder).encode(list(photos.values()))
    rows = table.to_arrow()
    for part in ("invariant", "equivariant"):
        found = np.array(rows[part].to_pylist(), np.float32)
        np.testing.assert_allclose(found, getattr(expected, part), atol=1e-5)
        hit = table.search(str(photos["coffee"]), vector_column_name=part).limit(1).to_list()[0]
        assert hit["path"] == str(photos["coffee"])


@pytest.mark.parametrize("imported", [True, False])
def test_another_program_knows_it_once_it_is_imported(
    table: Any, photos: dict[str, Path], tmp_path: Path, imported: bool
) -> None:
    program = f"""
import lancedb
{"import clever_hub.integrations" if imported else ""}
table = lancedb.connect({str(tmp_path / "db")!r}).open_table("photos")
print(table.search({str(photos["rocket"])!r}, vector_column_name="invariant").to_list()[0]["path"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if imported:
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(photos["rocket"])
    else:
        assert done.returncode != 0
        assert "clever_hub.integrations" in done.stderr.splitlines()[-1]


def test_a_photo_that_cannot_be_read_fails_at_once(table: Any, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.jpg")
    with pytest.raises(Exception, match=r"gone\.jpg: no such file"):
        table.add([{"path": gone, "same_path": gone}])
    assert table.count_rows() == 4


def test_where_no_model_is_named_it_is_that_of_the_jobs_and_the_table_remembers_it(
    photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lancedb.embeddings import get_registry
    from lancedb.pydantic import LanceModel, Vector

    from clever_hub.integrations import lancedb as integration

    kind: Any = get_registry().get("clever_hub.integrations")
    assert kind().name == default_model()
    content = kind.create()
    assert content.name == default_model()

    class Photo(LanceModel):  # type: ignore[misc, unused-ignore]
        path: str = content.SourceField()
        vector: Vector(content.ndims()) = content.VectorField()  # type: ignore[valid-type]

    database = lancedb.connect(str(tmp_path / "db"))
    database.create_table("photos", schema=Photo).add([{"path": str(photos["coffee"])}])
    monkeypatch.setattr(integration, "default_model", lambda: "clever-resnet18")
    assert kind.create().name == "clever-resnet18"
    opened = database.open_table("photos")
    assert opened.embedding_functions["vector"].function.name == default_model()
