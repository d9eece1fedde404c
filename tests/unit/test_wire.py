"""The messages: faithful to the protocol, and checked before they are believed."""

import dataclasses
from importlib import resources

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from adaptive_split.errors import BundleError, PayloadError
from adaptive_split.runtime import wire
from adaptive_split.runtime.protos import open_inference as oip
from adaptive_split.runtime.wire import TailReply, TailRequest
from adaptive_split.testing import tiny_bundle

BUNDLE = tiny_bundle()
REQUEST = TailRequest(frame_index=3, split_point=1, bits=4, payload=b"codes", slack_s=0.125)


def test_a_request_comes_back_as_packed():
    data = wire.pack_request(BUNDLE, REQUEST).SerializeToString()

    message = oip.ModelInferRequest.FromString(data)

    assert wire.unpack_request(BUNDLE, message, most_bytes=100) == REQUEST
    assert wire.stage_range(BUNDLE, message.model_name) == (2, 3)


def test_a_reply_comes_back_as_packed():
    reply = TailReply(
        answer=16, confidence=0.5, exit_index=3, queue_s=0.1, compute_s=0.2, server_load=0.3
    )
    message = wire.pack_reply(BUNDLE, wire.pack_request(BUNDLE, REQUEST), reply)

    assert wire.unpack_reply(message) == reply


def test_field_numbers_are_those_of_the_protocol():
    fields = oip.DESCRIPTOR.message_types_by_name["ModelInferRequest"].fields_by_name
    outputs = oip.DESCRIPTOR.message_types_by_name["ModelInferResponse"].fields_by_name

    assert oip.DESCRIPTOR.package == "inference"
    assert {name: field.number for name, field in fields.items()} == {
        "model_name": 1, "model_version": 2, "id": 3, "parameters": 4, "inputs": 5, "outputs": 6,
        "raw_input_contents": 7,
    }  # fmt: skip
    assert (outputs["outputs"].number, outputs["raw_output_contents"].number) == (5, 6)


def test_the_descriptor_is_that_of_the_proto_file(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    folder = resources.files("adaptive_split.runtime.protos")
    out = tmp_path / "out.binpb"

    code = protoc.main(
        ["", f"-I{folder}", f"--descriptor_set_out={out}", f"{folder}/open_inference.proto"]
    )

    assert code == 0
    assert out.read_bytes() == (folder / "open_inference.binpb").read_bytes()


def spoiled(**changes):
    message = wire.pack_request(BUNDLE, REQUEST)
    for name, value in changes.items():
        message.parameters[name].CopyFrom(value)
    return message


def parameter(**value):
    return oip.InferParameter(**value)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"split_point": parameter(int64_param=2)}, PayloadError, "split_point must be 1"),
        ({"split_point": parameter(bool_param=True)}, PayloadError, "split_point must be 1"),
        ({"bits": parameter(int64_param=3)}, PayloadError, "bits must be 1, 2, 4 or 8; got 3"),
        ({"slack_ms": parameter(string_param="soon")}, PayloadError, "slack_ms must be a number"),
        ({"slack_ms": parameter(double_param=float("nan"))}, PayloadError, "slack_ms"),
        ({"bundle_hash": parameter(string_param="f00")}, BundleError, "bundle_hash must be '0000"),
    ],
)
def test_wrong_fields_are_refused(changes, error, text):
    with pytest.raises(error, match=text):
        wire.unpack_request(BUNDLE, spoiled(**changes), most_bytes=100)


@pytest.mark.parametrize(
    "name", ["", "tiny", "tiny.0-3", "tiny.1-4", "tiny.3-2", "other.1-3", "tiny.1-3 ", "tiny.a-b"]
)
def test_a_model_that_is_no_stage_range_is_refused(name):
    with pytest.raises(PayloadError, match=r"model name must be tiny\.A-B"):
        wire.stage_range(BUNDLE, name)


def test_a_payload_of_another_size_than_stated_is_refused():
    message = wire.pack_request(BUNDLE, REQUEST)
    message.raw_input_contents[0] = b"longer than stated"

    with pytest.raises(PayloadError, match=r"the input must be UINT8 \[1, 18\]"):
        wire.unpack_request(BUNDLE, message, most_bytes=100)


def test_a_payload_that_is_too_large_is_refused():
    with pytest.raises(PayloadError, match="a payload must hold 1 to 4 bytes; got 5"):
        wire.unpack_request(BUNDLE, wire.pack_request(BUNDLE, REQUEST), most_bytes=4)


def test_foreign_servers_need_not_tell_times():
    message = wire.pack_reply(BUNDLE, wire.pack_request(BUNDLE, REQUEST), TailReply(
        answer=1, confidence=1.0, exit_index=3, queue_s=1.0, compute_s=1.0, server_load=1.0
    ))  # fmt: skip
    message.parameters.clear()

    reply = wire.unpack_reply(message)

    assert reply == dataclasses.replace(reply, answer=1, queue_s=0.0, compute_s=0.0)


@given(data=st.binary(max_size=200), cut=st.integers(0, 200))
def test_bytes_from_a_peer_raise_nothing_but_our_errors(data, cut):
    whole = wire.pack_request(BUNDLE, REQUEST).SerializeToString()
    try:
        message = oip.ModelInferRequest.FromString(whole[:cut] + data)
    except DecodeError:
        return
    try:
        wire.unpack_request(BUNDLE, message, most_bytes=100)
    except (PayloadError, BundleError):
        return
