"""Exports a multi-exit network to a model bundle, and checks that it answers as torch does."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptive_split.bundle import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    JPEG,
    ModelBundle,
    file_name,
    write_bundle,
)
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.models.calibration import calibration_error, fit_temperature
from adaptive_split.models.pictures import LabelledPictures
from adaptive_split.models.trace import first_line
from adaptive_split.runtime.stages import StageRunner

OPSET = 18
"""Written with IR version 10, which ONNX Runtime reads from 1.18 on."""
PARITY = 1e-3
"""Largest difference of a logit between torch and ONNX Runtime that is accepted."""


class MultiExitNet(Protocol):
    """What a network must offer to be exported; `GarmentsNet` is one."""

    stages: nn.ModuleList
    exits: nn.ModuleList
    encoders: nn.ModuleList
    decoders: nn.ModuleList

    def normalize(self, pictures: Tensor) -> Tensor:
        """Center pictures `(N, 3, H, W)` with values in [0, 1]."""
        ...


class _First(nn.Module):
    """Normalization and the first stage."""

    def __init__(self, net: MultiExitNet) -> None:
        super().__init__()
        self.net, self.stage = net, net.stages[0]

    def forward(self, pictures: Tensor) -> Tensor:
        return cast("Tensor", self.stage(self.net.normalize(pictures)))


class _Tempered(nn.Module):
    """An exit whose logits are divided by its temperature."""

    def __init__(self, exit_: nn.Module, temperature: float) -> None:
        super().__init__()
        self.exit, self.temperature = exit_, temperature

    def forward(self, feature: Tensor) -> Tensor:
        return cast("Tensor", self.exit(feature) / self.temperature)


def export_bundle(
    net: MultiExitNet,
    classes: tuple[str, ...],
    out_dir: Path,
    *,
    name: str,
    picture_qualities: Mapping[int, int],
    provenance: Mapping[str, Any],
    calibration: LabelledPictures,
    picture_format: str = JPEG,
) -> ModelBundle:
    """Write one ONNX graph per stage, exit, encoder and decoder, and the manifest.

    Args:
        net: The trained network; a copy of it is put into evaluation mode.
        classes: Class names, in the order of the logits.
        out_dir: A directory that does not exist yet; it appears only when all checks passed.
        name: Name of the bundle.
        picture_qualities: Quality of each rung (bits) at split point 0.
        provenance: What the manifest tells of data, license and training.
        calibration: Pictures that temperatures are fitted and parity is checked on.
        picture_format: How pictures are compressed at split point 0.

    Raises:
        ConfigError: If `out_dir` exists.
        BundleError: If ONNX Runtime and torch disagree by more than `PARITY` in any logit.
    """
    if out_dir.exists():
        raise ConfigError(f"out_dir must not exist yet; got {str(out_dir)!r}")
    net = copy.deepcopy(net)
    cast("nn.Module", net).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    labels = calibration.labels.numpy()
    logits = _all_logits(net, calibration.pixels[0])
    temperatures = tuple(round(fit_temperature(row, labels), 4) for row in logits)
    calibrated = {
        "pictures": len(labels),
        "error_before": [round(calibration_error(row, labels), 4) for row in logits],
        "error_after": [
            round(calibration_error(row / temperature, labels), 4)
            for row, temperature in zip(logits, temperatures, strict=True)
        ],
    }
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f".{out_dir.name}-") as scratch:
        path = Path(scratch) / "bundle"
        path.mkdir()
        shapes = _export_parts(net, temperatures, calibration.pixels[0, :2], path)
        bundle = write_bundle(
            path,
            name=name,
            classes=classes,
            input_shape=cast("tuple[int, int, int]", tuple(calibration.pixels.shape[2:])),
            feature_shapes=tuple(shapes["stage", k + 1] for k in range(len(net.stages))),
            code_shapes={k + 1: shapes["encoder", k + 1] for k in range(len(net.encoders))},
            picture_qualities=picture_qualities,
            temperatures=temperatures,
            provenance={**provenance, "calibration": calibrated},
            picture_format=picture_format,
        )
        _check_parity(net, bundle, calibration.pixels[0, :8])
        path.rename(out_dir)
    return ModelBundle.load(out_dir)


@torch.no_grad()
def _all_logits(net: MultiExitNet, pixels: Tensor) -> list[NDArray[np.float32]]:
    """Logits `(M, C)` of every exit, without temperature."""
    batches = []
    for batch in torch.split(pixels, 32):
        feature, logits = net.normalize(batch.float() / 255), []
        for stage, exit_ in zip(net.stages, net.exits, strict=True):
            feature = stage(feature)
            logits.append(exit_(feature))
        batches.append(logits)
    return [torch.cat(column).numpy() for column in zip(*batches, strict=True)]


@torch.no_grad()
def _export_parts(
    net: MultiExitNet, temperatures: tuple[float, ...], pixels: Tensor, path: Path
) -> dict[tuple[str, int], tuple[int, int, int]]:
    """Write every graph; return the `(C, H, W)` that each stage, encoder and decoder gives."""
    shapes = {}
    feature = pixels.float() / 255
    for index, stage in enumerate(net.stages, start=1):
        first = _First(net) if index == 1 else stage
        feature, shapes["stage", index] = _export("stage", index, first, feature, path)
        tempered = _Tempered(net.exits[index - 1], temperatures[index - 1])
        _export("exit", index, tempered, feature, path)
        if index <= len(net.encoders):
            encoder, decoder = net.encoders[index - 1], net.decoders[index - 1]
            codes, shapes["encoder", index] = _export("encoder", index, encoder, feature, path)
            _, shapes["decoder", index] = _export("decoder", index, decoder, codes, path)
    return shapes


def _export(
    part: str, index: int, module: nn.Module, example: Tensor, path: Path
) -> tuple[Tensor, tuple[int, int, int]]:
    module = module.eval()
    # One line for each operator of torchvision, which we do not use, for every graph.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch.export of 2.13 calls a helper of its own that it deprecates.
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated", FutureWarning)
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[GRAPH_INPUT],
                output_names=[GRAPH_OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except Exception as error:  # of the exporter or, through it, of any model
            raise BundleError(
                f"{part} {index} must consist of operators that ONNX has, for any number of "
                f"pictures; got {first_line(error.__cause__ or error)}; put other operators there"
            ) from error
    assert program is not None
    graph = program.model_proto
    _strip(graph)
    onnx.checker.check_model(graph, full_check=True)
    (path / file_name(part, index)).write_bytes(graph.SerializeToString(deterministic=True))
    output = module(example)
    return output, tuple(output.shape[1:])


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about source files and modules; it tells our paths."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    del model.functions[:]
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""


@torch.no_grad()
def _check_parity(net: MultiExitNet, bundle: ModelBundle, pixels: Tensor) -> None:
    """Compare the logits of every exit, and of the last one behind every bottleneck."""
    with StageRunner(bundle) as runner:
        ours = pixels.float() / 255
        theirs = ours.numpy()
        ours = net.normalize(ours)
        for index, stage in enumerate(net.stages, start=1):
            ours, theirs = stage(ours), runner.stage(index, theirs)
            _compare(net, runner, f"exit {index}", index, ours, theirs)
            if index < bundle.num_stages:
                codes = [runner.encode(index, row[None]) for row in theirs]
                behind = runner.decode_all(index, np.stack(codes))
                decoded = net.decoders[index - 1](net.encoders[index - 1](ours))
                for later in range(index + 1, bundle.num_stages + 1):
                    behind, decoded = runner.stage(later, behind), net.stages[later - 1](decoded)
                _compare(net, runner, f"split point {index}", bundle.num_stages, decoded, behind)


def _compare(
    net: MultiExitNet,
    runner: StageRunner,
    what: str,
    index: int,
    ours: Tensor,
    theirs: NDArray[np.float32],
) -> None:
    expected = net.exits[index - 1](ours).numpy() / runner.bundle.temperatures[index - 1]
    got = np.stack([answer.logits for answer in runner.exit_all(index, theirs)])
    error = float(np.abs(got - expected).max())
    if not error < PARITY:
        raise BundleError(
            f"ONNX Runtime must agree with torch at {what} within {PARITY}; got {error:.2e}"
        )
