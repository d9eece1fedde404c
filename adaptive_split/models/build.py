"""From a user's model and pictures to a model bundle that scenarios accept."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from adaptive_split.bundle import JPEG, WEBP, ModelBundle, add_provenance
from adaptive_split.decision import DecisionGrid
from adaptive_split.errors import ConfigError
from adaptive_split.models.calibration import exit_errors
from adaptive_split.models.division import Division, SplitNet, divide
from adaptive_split.models.export import export_bundle
from adaptive_split.models.multi_exit import INPUT_MEAN, INPUT_STD
from adaptive_split.models.own_pictures import OwnPictures, labelled
from adaptive_split.models.pictures import LabelledPictures
from adaptive_split.models.propose import NUM_STAGES
from adaptive_split.models.teach import TeachConfig, teach
from adaptive_split.models.trace import Logits, check_logits
from adaptive_split.outcomes import Outcomes, useful_thresholds
from adaptive_split.runtime.answer_log import AnswerLog
from adaptive_split.runtime.measure import Measured, identity, measure_exits
from adaptive_split.runtime.profiler import profile_bundle
from adaptive_split.runtime.views import LabelledPicture, check_count, in_views

PICTURE_QUALITIES = {
    JPEG: {1: 8, 2: 20, 4: 45, 8: 80},
    WEBP: {1: 5, 2: 20, 4: 45, 8: 80},
}
PROFILED_ROUNDS = 50
TRAINING = "training"
SCENARIO = """\
# Written by 'adaptive-split build'. Every key: adaptive_split/data/scenarios/default.toml.
bundle = "."                   # this folder, with its outcomes and profiles

[objective]
slo_s = 0.2                    # capture to answer, seconds
fps = 10.0                     # frames per second

[grid]
thresholds = {thresholds}   # exits answer from these confidences on; share your pictures evenly
"""

Progress = Callable[[str, int, int], None]
"""Told the phase, the steps done and all its steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """What a user decides about a build, beside model and pictures."""

    num_stages: int = NUM_STAGES
    mean: tuple[float, float, float] = INPUT_MEAN
    """Of the pictures that the model was trained on, values in [0, 1], subtracted first,"""
    std: tuple[float, float, float] = INPUT_STD
    """and their standard deviation, divided by."""
    teach: TeachConfig = field(default_factory=TeachConfig)
    picture_format: str = JPEG
    """How pictures are compressed at split point 0, `jpeg` or `webp`."""
    views: int = 1
    """In which each picture held out is measured; see `views.in_views`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be divided by, sent or seen."""
        if self.picture_format not in PICTURE_QUALITIES:
            raise ConfigError(
                f"picture_format must be one of {sorted(PICTURE_QUALITIES)}; "
                f"got {self.picture_format!r}"
            )
        check_count(self.views)
        if not all(value > 0 for value in self.std):
            raise ConfigError(f"std must be positive; got {self.std!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A bundle and what its exits and payloads answered on pictures that nobody trained on."""

    bundle: ModelBundle
    policy: Outcomes
    judge: Outcomes


def divide_for(model: nn.Module, pictures: OwnPictures, config: BuildConfig) -> Division:
    """Check that a model answers with logits for the classes of the pictures, and divide it.

    Raises:
        ConfigError: If it does not, or cannot be cut.
    """
    example = pictures.policy.pixels[0, :3].float() / 255
    while len(example) < 3:
        example = torch.cat([example, example])[:3]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    example = (example - mean) / std
    check_logits(Logits(model), example, len(pictures.train.classes))
    return divide(model, example, config.num_stages)


def build(
    division: Division,
    pictures: OwnPictures,
    out_dir: Path,
    config: BuildConfig,
    progress: Progress = lambda phase, done, total: None,
) -> Built:
    """Attach, train, export, measure and profile; the bundle appears when all is done.

    Beside the graphs it holds `outcomes_policy.npz`, `outcomes_judge.npz`, `profile_server.json`
    of this machine and `NAME.toml`, a scenario that lacks nothing but `profile_device.json`. What
    was trained, exported and measured is kept in `NAME.unfinished` beside it until then, so an
    interrupted build can be taken up again.

    Raises:
        ConfigError: If `out_dir` exists or what is kept beside it is of another build.
        BundleError: If an exported graph answers otherwise than torch.
    """
    if out_dir.exists():
        raise ConfigError(f"--out must not exist yet; got {out_dir}; name another or remove it")
    kept = out_dir.with_name(f"{out_dir.name}.unfinished")
    if not (kept / TRAINING).exists():  # it tells whose the rest is
        shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.teach.seed)
        net = SplitNet(division, len(pictures.train.classes), config.mean, config.std)
        teach(
            net, config.teach, pictures.train, kept / TRAINING,
            _identity(net, division, pictures, config),
            lambda done, total: progress("training", done, total),
        )  # fmt: skip
    built = _finish(net, division, pictures, kept / out_dir.name, config, progress)
    built.bundle.path.rename(out_dir)
    shutil.rmtree(kept)
    return Built(bundle=ModelBundle.load(out_dir), policy=built.policy, judge=built.judge)


def _finish(
    net: SplitNet,
    division: Division,
    pictures: OwnPictures,
    path: Path,
    config: BuildConfig,
    progress: Progress,
) -> Built:
    """Export a trained net, unless that was done before, then measure and profile it."""
    if path.exists():
        bundle = ModelBundle.load(path)
    else:
        progress("exporting", 0, 1)
        bundle = _export(net, division, pictures, path, config)
    halves = {}
    for subset, part in (("policy", pictures.policy), ("judge", pictures.judge)):
        halves[subset] = _measure(bundle, part, subset, config.views, progress)
        halves[subset].outcomes.save(path / f"outcomes_{subset}.npz")
    warmup = 5
    profile = profile_bundle(
        bundle, repeats=PROFILED_ROUNDS, warmup=warmup,
        progress=lambda done: progress("timing", done, PROFILED_ROUNDS + warmup),
    )  # fmt: skip
    profile.save(path / "profile_server.json")
    policy, judge = (Outcomes.load(path / f"outcomes_{subset}.npz") for subset in halves)
    scenario = SCENARIO.format(thresholds=list(useful_thresholds(policy)))
    (path / f"{path.name}.toml").write_text(scenario, encoding="utf-8")
    before, after = ([round(one, 4) for one in errors] for errors in exit_errors(halves["judge"]))
    held_out = {"pictures": len(judge.plain().files), "error_before": before, "error_after": after}
    bundle = add_provenance(bundle, {"calibration_held_out": held_out})
    return Built(bundle=bundle, policy=policy, judge=judge)


def _export(
    net: SplitNet, division: Division, pictures: OwnPictures, path: Path, config: BuildConfig
) -> ModelBundle:
    return export_bundle(
        net,
        pictures.train.classes,
        path,
        name=path.name,
        picture_qualities=PICTURE_QUALITIES[config.picture_format],
        provenance={
            "stages": division.names,
            "training": {"pictures": len(pictures.train.files), **asdict(config.teach)},
            "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        },
        calibration=pictures.policy,
        picture_format=config.picture_format,
    )


def _measure(
    bundle: ModelBundle, part: LabelledPictures, subset: str, views: int, progress: Progress
) -> Measured:
    """Measure one half; answers are kept beside the bundle from picture to picture."""
    grid, total = DecisionGrid(bundle.num_stages), len(part.files) * views

    def asked() -> Iterator[LabelledPicture]:
        return in_views(labelled(part), views)

    kept = bundle.path.with_name(f"answers_{subset}")
    with AnswerLog(kept, identity(bundle, grid, asked())) as log:
        return measure_exits(
            bundle, asked(), grid, subset=subset, log=log,
            progress=lambda done: progress(f"measuring {subset}", done, total),
        )  # fmt: skip


def _identity(net: SplitNet, division: Division, pictures: OwnPictures, config: BuildConfig) -> str:
    """A digest of weights, stages, pictures and how pictures are sent."""
    parts = (pictures.train, pictures.policy, pictures.judge)
    files = [part.files for part in parts]
    told = (division.names, pictures.train.classes, files, config.picture_format)
    digest = hashlib.sha256(repr(told).encode())
    for part in parts:
        digest.update(part.pixels.numpy().tobytes())
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()
