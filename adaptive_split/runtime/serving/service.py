"""What an edge server does with a request, apart from sockets and queues."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_split import __version__
from adaptive_split.bundle import ModelBundle
from adaptive_split.clock import Clock
from adaptive_split.codec import HEADER_BYTES
from adaptive_split.errors import BundleError, PayloadError
from adaptive_split.profile import Profile
from adaptive_split.runtime import wire
from adaptive_split.runtime.parts import Stages
from adaptive_split.runtime.protos import open_inference as oip
from adaptive_split.runtime.serving.batch_cost import BatchCosts, free_costs, profiled_costs
from adaptive_split.runtime.serving.tail_steps import TailSteps
from adaptive_split.runtime.stages import ExitAnswer, Tensor
from adaptive_split.runtime.wire import TailRequest


class TailService:
    """Checks requests and computes tails of one bundle."""

    def __init__(
        self,
        bundle: ModelBundle,
        stages: Stages,
        clock: Clock,
        *,
        profile: Profile | None = None,
        slowdown: float = 0.0,
        costs: BatchCosts | None = None,
    ) -> None:
        """Take what is known of how long tails take here.

        Args:
            bundle: The model.
            stages: Runs it.
            clock: Real, or a test's.
            profile: Of this machine.
            slowdown: Take no less than this multiple of the profile; 0 = as fast as it runs.
            costs: Measured here, and used instead of a profile; with neither, a tail takes no time.
        """
        self.bundle = bundle
        if costs is None:
            factor = max(slowdown, 1.0)
            costs = profiled_costs(profile, factor) if profile else free_costs(bundle)
        self.costs = costs
        """What every part takes at best."""
        self.steps = TailSteps(bundle, stages, clock, costs, paced=slowdown > 0)
        """What a scheduler runs one by one."""

    @property
    def most_bytes(self) -> int:
        """Size that no payload of this bundle exceeds."""
        return max(self._most_bytes(split) for split in range(self.bundle.num_stages))

    def parse(self, message: oip.ModelInferRequest) -> tuple[TailRequest, int]:
        """Check a request before anything is decompressed; return it and its last stage.

        Raises:
            PayloadError: If a part is missing, too large or out of range.
            BundleError: If the peer holds another bundle.
        """
        first, last = wire.stage_range(self.bundle, message.model_name)
        most_bytes = self._most_bytes(first - 1)
        return wire.unpack_request(self.bundle, message, most_bytes), last

    def expected_s(self, split_point: int, last: int) -> float:
        """How long a tail takes at best."""
        return self.costs.rest_s(split_point + 1, last, entering=True)

    def answer(self, request: TailRequest, last: int) -> ExitAnswer:
        """Answer one request by the exit after its last stage.

        Raises:
            PayloadError: If the payload is damaged.
        """
        (answer,) = self.answer_all([(request, last)])
        if isinstance(answer, PayloadError):
            raise answer
        return answer

    def answer_all(
        self, requests: Sequence[tuple[TailRequest, int]]
    ) -> list[ExitAnswer | PayloadError]:
        """Answer requests as one batch, which grows and shrinks from stage to stage.

        Args:
            requests: Each with its last stage.

        Returns:
            In the same order, the answer of the exit after the last stage, or what is wrong with
            the payload.
        """
        found: dict[int, ExitAnswer | PayloadError] = {}
        features: dict[int, Tensor] = {}
        for stage in range(1, self.bundle.num_stages + 1):
            new = [i for i, (request, _) in enumerate(requests) if request.split_point == stage - 1]
            payloads = [requests[index][0].payload for index in new]
            entered = self.steps.enter(stage - 1, payloads) if new else []
            for index, decoded in zip(new, entered, strict=True):
                if isinstance(decoded, PayloadError):
                    found[index] = decoded
                else:
                    features[index] = decoded
            if features:
                moved = self.steps.advance(stage, list(features.values()))
                features = dict(zip(features, moved, strict=True))
            done = [index for index in features if requests[index][1] == stage]
            ended = [features.pop(index) for index in done]
            found.update(zip(done, self.steps.ask(stage, ended) if ended else [], strict=True))
        return [found[index] for index in range(len(requests))]

    def serves(self, name: str, version: str = "") -> bool:
        """Whether a model of that name, and version if one is given, is served."""
        if name == wire.PROBE_MODEL:
            return True
        try:
            wire.stage_range(self.bundle, name)
        except PayloadError:
            return False
        return version in ("", self.bundle.hash)

    def metadata(self, name: str) -> oip.ModelMetadataResponse:
        """Describe a model; its only version is the bundle's hash.

        Raises:
            BundleError: If no such model is served.
        """
        if not self.serves(name):
            raise BundleError(
                f"a model must be a stage range of {self.bundle.name}; got {name[:80]!r}"
            )
        tensor = oip.ModelMetadataResponse.TensorMetadata
        return oip.ModelMetadataResponse(
            name=name,
            versions=[self.bundle.hash],
            platform="adaptive_split",
            inputs=[tensor(name="payload", datatype=wire.UINT8, shape=[1, -1])],
            outputs=[
                tensor(name="answer", datatype="INT64", shape=[1]),
                tensor(name="confidence", datatype="FP32", shape=[1]),
            ],
        )

    def server_metadata(self) -> oip.ServerMetadataResponse:
        """Describe the server."""
        return oip.ServerMetadataResponse(name="adaptive_split", version=__version__)

    def _most_bytes(self, split_point: int) -> int:
        if split_point == 0:
            return 3 * self.bundle.input_shape[1] * self.bundle.input_shape[2] + 4096
        channels, height, width = self.bundle.code_shapes[split_point]
        return channels * height * width + HEADER_BYTES
