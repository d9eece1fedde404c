"""`adaptive-split run --camera`: a video from its begin to its end, answered as a folder is."""

import numpy as np
import pytest
from PIL import Image

from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.cli import main
from adaptive_split.cli.common import SHIPPED_PICTURES
from adaptive_split.runtime.picture_folder import read_folder
from adaptive_split.runtime.records import read_records
from adaptive_split.runtime.stages import StageRunner
from tests.unit.test_cameras import write_video

FPS, NUM_PICTURES = 4.0, 6


@pytest.mark.slow
def test_a_video_is_answered_as_its_pictures_are_and_its_end_ends_the_run(tmp_path, capsys):
    files = sorted(SHIPPED_PICTURES.rglob("*.jpg"))[::20][:NUM_PICTURES]
    pictures = [np.asarray(Image.open(file).convert("RGB").resize((320, 240))) for file in files]
    for index, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    write_video(tmp_path / "video.avi", pictures, FPS)
    records = tmp_path / "run.jsonl"

    status = main(
        [
            "run", "--server", "127.0.0.1:1", "--camera", f"video:{tmp_path / 'video.avi'}",
            "--controller", "local", "--slowdown", "0", "--fps", str(FPS),
            "--records", str(records), "--insecure",
        ]
    )  # fmt: skip

    assert status == 0
    assert "camera: pictures were " in capsys.readouterr().out
    reports = [record.report for record in read_records(records)]
    assert NUM_PICTURES <= len(reports) <= NUM_PICTURES + 3
    full = [report for report in reports if report.exit_index == 5]
    assert len(full) >= 3
    expected = answers(tmp_path)
    assert [report.answer for report in full] == [expected[one.sample_index] for one in full]


def answers(folder):
    """What the whole network says of every picture of a folder."""
    bundle = ModelBundle.load(bundle_path("garments"))
    with StageRunner(bundle, parts=bundle.parts) as stages:
        found = []
        for pixels in read_folder(folder, bundle).pixels:
            tensor = stages.prepare(pixels)
            for index in range(1, bundle.num_stages + 1):
                tensor = stages.stage(index, tensor)
            found.append(stages.exit(bundle.num_stages, tensor).answer)
        return found
