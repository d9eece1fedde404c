"""What an edge server does with a request, apart from sockets and queues."""

from __future__ import annotations

from adaptive_split import __version__
from adaptive_split.bundle import ModelBundle
from adaptive_split.clock import Clock
from adaptive_split.codec import HEADER_BYTES, decode_feature, decode_picture
from adaptive_split.errors import BundleError, PayloadError
from adaptive_split.profile import Profile
from adaptive_split.runtime import wire
from adaptive_split.runtime.parts import Pacer, Stages
from adaptive_split.runtime.protos import open_inference as oip
from adaptive_split.runtime.stages import ExitAnswer
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
    ) -> None:
        """Take a profile of this machine, to know what a tail takes at best; 0 s without one."""
        self.bundle = bundle
        self._stages, self._profile, self._slowdown = stages, profile, slowdown
        self._pacer = Pacer(clock, slowdown)

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
        """How long a tail takes at best.

        Not what recent ones took: after a slow one every request would be refused, and nothing
        would ever correct the estimate.
        """
        return self._profiled_s(split_point, last) * max(self._slowdown, 1.0)

    def answer(self, request: TailRequest, last: int) -> ExitAnswer:
        """Decode a payload, run its stages and ask the exit after the last one.

        Raises:
            PayloadError: If the payload is damaged.
        """
        split_point = request.split_point
        profiled_s = self._profiled_s(split_point, last)
        answer, _ = self._pacer.run(profiled_s, lambda: self._compute(request, last))
        return answer

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

    def _compute(self, request: TailRequest, last: int) -> ExitAnswer:
        split_point, stages = request.split_point, self._stages
        if split_point == 0:
            size = self.bundle.input_shape[1]
            tensor = stages.prepare(decode_picture(request.payload, size))
        else:
            shape = self.bundle.code_shapes[split_point]
            tensor = stages.decode(split_point, decode_feature(request.payload, shape))
        for index in range(split_point + 1, last + 1):
            tensor = stages.stage(index, tensor)
        return stages.exit(last, tensor)

    def _profiled_s(self, split_point: int, last: int) -> float:
        profile = self._profile
        if profile is None:
            return 0.0
        stages_s = sum(profile.stage_s[split_point:last])
        return profile.decoder_s[split_point] + stages_s + profile.exit_s[last - 1]

    def _most_bytes(self, split_point: int) -> int:
        if split_point == 0:
            return 3 * self.bundle.input_shape[1] * self.bundle.input_shape[2] + 4096
        channels, height, width = self.bundle.code_shapes[split_point]
        return channels * height * width + HEADER_BYTES
