"""A folder with all that commands ask for: scenario, bundle, outcomes, pictures, traces."""

from dataclasses import replace

from PIL import Image

from adaptive_split.decision import DecisionGrid
from adaptive_split.profile import MODELLED
from adaptive_split.runtime.measure import measure
from adaptive_split.runtime.profiler import profile_bundle
from adaptive_split.trace import write_trace
from tests.color_bundle import color_pictures, write_color_bundle


def write_place(folder, scenario, traces, *, whole_s, repeats=3):
    """Write the bundle of colors with a device that takes `whole_s`, a picture per color, traces.

    The scenario, TOML, is `colors.toml` and names the bundle `bundle`.
    """
    (folder / "bundle").mkdir()
    bundle = write_color_bundle(folder / "bundle")
    fast = profile_bundle(bundle, repeats=repeats, warmup=1)
    slow = fast.scaled(whole_s / fast.full_s, "a slow device")
    slow = replace(slow, compute_w=3.0, energy_provenance=MODELLED, energy_source="made up")
    slow.save(folder / "bundle" / "profile_device.json")
    fast.save(folder / "bundle" / "profile_server.json")
    for subset in ("policy", "judge"):
        outcomes = measure(bundle, color_pictures(), DecisionGrid(2), subset=subset)
        outcomes.save(folder / "bundle" / f"outcomes_{subset}.npz")
    (folder / "pictures").mkdir()
    for file, _, pixels in color_pictures():
        Image.fromarray(pixels).save(folder / "pictures" / file)
    labels = [f"{file},{file.split('.')[0]}" for file, _, _ in color_pictures()]
    (folder / "pictures" / "labels.csv").write_text("\n".join(["file,label", *labels]))
    for trace in traces:
        (folder / "traces" / trace.family).mkdir(parents=True, exist_ok=True)
        write_trace(trace, folder / "traces" / trace.family / f"{trace.name}.csv")
    (folder / "colors.toml").write_text(scenario)
