"""Requests and replies as the messages of the Open Inference Protocol."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from adaptive_split.errors import BundleError, LinkError, PayloadError
from adaptive_split.runtime.protos import open_inference as oip

SERVICE = "inference.GRPCInferenceService"
PROBE_MODEL = "probe"
"""A model that takes any bytes and answers at once: for measuring the uplink."""
MOST_PROBE_BYTES = 65_536
MOST_RUN_ID = 32
UINT8 = "UINT8"


class RefusedError(LinkError):
    """The server is there but took no more work: its queue is full or the slack too short."""

    def __init__(self, message: str, wait_s: float = 0.0, reason: str = "busy") -> None:
        super().__init__(message)
        self.wait_s = wait_s
        """How long the request would have waited."""
        self.reason = reason
        """In one or two words, to count by."""


class Bundle(Protocol):
    """What both sides must agree on; a `ModelBundle` has it."""

    @property
    def name(self) -> str:
        """Name of the model, the first part of the names served."""
        ...

    @property
    def hash(self) -> str:
        """Hash over every file of the bundle."""
        ...

    @property
    def num_stages(self) -> int:
        """Number of stages, S."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TailRequest:
    """One payload for the server."""

    frame_index: int
    split_point: int
    bits: int
    payload: bytes
    slack_s: float
    """From sending until the reply is of no use; a duration, as clocks are never compared."""
    run_id: str = ""
    """Drawn at random when `frame_index` begins anew, to tell a frame sent twice; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TailReply:
    """The server's answer to one payload, and what it cost there."""

    answer: int
    confidence: float
    exit_index: int
    queue_s: float
    compute_s: float
    server_load: float
    """Busy share of the server over the last second."""


def model_name(bundle: Bundle, split_point: int) -> str:
    """Name the stage range that finishes what was split at `split_point`."""
    return f"{bundle.name}.{split_point + 1}-{bundle.num_stages}"


def stage_range(bundle: Bundle, name: str) -> tuple[int, int]:
    """Read the first and last stage from a model name such as `garments.3-5`.

    Raises:
        PayloadError: If the bundle has no such range.
    """
    found = re.fullmatch(re.escape(bundle.name) + r"\.([0-9]{1,3})-([0-9]{1,3})", name)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= last <= bundle.num_stages:
        raise PayloadError(
            f"model name must be {bundle.name}.A-B with stages 1 <= A <= B <= {bundle.num_stages}; "
            f"got {name[:80]!r}"
        )
    return first, last


def pack_request(bundle: Bundle, request: TailRequest) -> oip.ModelInferRequest:
    """Write a request."""
    message = payload_message(model_name(bundle, request.split_point), request.payload)
    message.id = str(request.frame_index)
    parameters = message.parameters
    parameters["split_point"].int64_param = request.split_point
    parameters["bits"].int64_param = request.bits
    parameters["frame_index"].int64_param = request.frame_index
    parameters["bundle_hash"].string_param = bundle.hash
    parameters["slack_ms"].double_param = 1e3 * request.slack_s
    if request.run_id:
        parameters["run_id"].string_param = request.run_id
    return message


def payload_message(name: str, payload: bytes) -> oip.ModelInferRequest:
    """Wrap bytes as the one `UINT8 [1, n]` input of a model."""
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="payload", datatype=UINT8, shape=[1, len(payload)]
    )
    return oip.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[payload])


def payload_of(message: oip.ModelInferRequest, most_bytes: int) -> bytes:
    """Take the payload out of a request, after checking its type, shape and size.

    Raises:
        PayloadError: If the request does not hold exactly one raw `UINT8 [1, n]` input.
    """
    if len(message.inputs) != 1 or len(message.raw_input_contents) != 1:
        raise PayloadError(
            "a request must hold one input, as raw content; got "
            f"{len(message.inputs)} inputs, {len(message.raw_input_contents)} raw contents"
        )
    tensor, payload = message.inputs[0], message.raw_input_contents[0]
    if tensor.datatype != UINT8 or list(tensor.shape) != [1, len(payload)]:
        raise PayloadError(
            f"the input must be UINT8 [1, {len(payload)}], as its raw content; got "
            f"{tensor.datatype[:16]!r} {list(tensor.shape)[:4]}"
        )
    if not 0 < len(payload) <= most_bytes:
        raise PayloadError(f"a payload must hold 1 to {most_bytes} bytes; got {len(payload)}")
    return payload


def unpack_request(bundle: Bundle, message: oip.ModelInferRequest, most_bytes: int) -> TailRequest:
    """Read and check a request; its stage range must begin after its split point.

    Raises:
        PayloadError: If a part is missing or out of range.
        BundleError: If the peer holds another bundle.
    """
    first, _ = stage_range(bundle, message.model_name)
    given = parameters_of(message.parameters)
    for held in (given.get("bundle_hash"), message.model_version):
        if held and held != bundle.hash:
            raise BundleError(f"bundle_hash must be {bundle.hash!r}; got {str(held)[:80]!r}")
    split_point, bits = given.get("split_point", first - 1), given.get("bits", 8)
    if type(split_point) is not int or split_point != first - 1:
        raise PayloadError(
            f"split_point must be {first - 1}, as the model name says; got {split_point!r}"
        )
    if bits not in (1, 2, 4, 8):
        raise PayloadError(f"bits must be 1, 2, 4 or 8; got {bits!r}")
    slack_ms, frame_index = given.get("slack_ms", 1e4), given.get("frame_index", 0)
    if not isinstance(slack_ms, int | float) or not -1e6 < slack_ms < 1e6:
        raise PayloadError(f"slack_ms must be a number of milliseconds; got {slack_ms!r}")
    return TailRequest(
        frame_index=frame_index if isinstance(frame_index, int) else 0,
        split_point=split_point,
        bits=int(bits),
        payload=payload_of(message, most_bytes),
        slack_s=slack_ms / 1e3,
        run_id=_run_id(given.get("run_id", "")),
    )


def _run_id(given: bool | int | float | str) -> str:
    if not isinstance(given, str) or len(given) > MOST_RUN_ID:
        raise PayloadError(
            f"run_id must be at most {MOST_RUN_ID} letters; got {str(given)[:MOST_RUN_ID]!r}"
        )
    return given


def pack_reply(
    bundle: Bundle, request: oip.ModelInferRequest, reply: TailReply
) -> oip.ModelInferResponse:
    """Write a reply."""
    tensor = oip.ModelInferResponse.InferOutputTensor
    message = oip.ModelInferResponse(
        model_name=request.model_name,
        model_version=bundle.hash,
        id=request.id,
        outputs=[
            tensor(name="answer", datatype="INT64", shape=[1]),
            tensor(name="confidence", datatype="FP32", shape=[1]),
        ],
        raw_output_contents=[
            np.array([reply.answer], "<i8").tobytes(),
            np.array([reply.confidence], "<f4").tobytes(),
        ],
    )
    message.parameters["queue_s"].double_param = reply.queue_s
    message.parameters["compute_s"].double_param = reply.compute_s
    message.parameters["server_load"].double_param = reply.server_load
    message.parameters["exit_index"].int64_param = reply.exit_index
    return message


def unpack_reply(message: oip.ModelInferResponse) -> TailReply:
    """Read a reply; times that a foreign server does not tell count as 0.

    Raises:
        PayloadError: If it holds no answer.
    """
    names = [tensor.name for tensor in message.outputs]
    raw = dict(zip(names, message.raw_output_contents, strict=False))
    answer, confidence = raw.get("answer", b""), raw.get("confidence", b"")
    if len(answer) != 8 or len(confidence) != 4:
        raise PayloadError(
            f"a reply must hold answer INT64 [1] and confidence FP32 [1]; got {names[:8]}"
        )
    given = parameters_of(message.parameters)

    def number(name: str) -> float:
        value = given.get(name, 0.0)
        return float(value) if isinstance(value, int | float) else 0.0

    return TailReply(
        answer=int(np.frombuffer(answer, "<i8")[0]),
        confidence=float(np.frombuffer(confidence, "<f4")[0]),
        exit_index=int(number("exit_index")),
        queue_s=number("queue_s"),
        compute_s=number("compute_s"),
        server_load=number("server_load"),
    )


def pack_probe_reply(request: oip.ModelInferRequest, received_s: float) -> oip.ModelInferResponse:
    """Answer a probe with the moment on this server's clock when all of it had come."""
    message = oip.ModelInferResponse(model_name=PROBE_MODEL, id=request.id)
    message.parameters["received_s"].double_param = received_s
    return message


def received_s(message: oip.ModelInferResponse) -> float | None:
    """Read that moment; `None` where a foreign server does not tell, or tells nonsense."""
    moment = parameters_of(message.parameters).get("received_s")
    return moment if isinstance(moment, float) and math.isfinite(moment) else None


def parameters_of(
    parameters: Mapping[str, oip.InferParameter],
) -> dict[str, bool | int | float | str]:
    """Read the decision fields and times that travel beside the tensors."""
    values: dict[str, bool | int | float | str] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            values[name] = getattr(parameter, choice)
    return values
