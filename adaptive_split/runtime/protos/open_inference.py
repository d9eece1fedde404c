"""The messages of the Open Inference Protocol, built from a checked-in descriptor.

Not generated code and not `tritonclient`, for three reasons. Generated code refuses protobuf
runtimes older than its generator and warns under newer ones, a descriptor loads under all of them.
A pool of our own lets a process hold KServe's or Triton's classes of the same names as well.
`tritonclient[grpc]` pins protobuf < 7 and brings rapidjson and ml-dtypes, for six messages.
"""

from importlib import resources

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FILES = descriptor_pb2.FileDescriptorSet.FromString(
    (resources.files("adaptive_split.runtime.protos") / "open_inference.binpb").read_bytes()
)
_POOL = descriptor_pool.DescriptorPool()
for _file in _FILES.file:
    _POOL.Add(_file)
DESCRIPTOR = _POOL.FindFileByName("open_inference.proto")


def _message(name: str) -> type:
    return message_factory.GetMessageClass(DESCRIPTOR.message_types_by_name[name])


ServerLiveRequest = _message("ServerLiveRequest")
ServerLiveResponse = _message("ServerLiveResponse")
ServerReadyRequest = _message("ServerReadyRequest")
ServerReadyResponse = _message("ServerReadyResponse")
ModelReadyRequest = _message("ModelReadyRequest")
ModelReadyResponse = _message("ModelReadyResponse")
ServerMetadataRequest = _message("ServerMetadataRequest")
ServerMetadataResponse = _message("ServerMetadataResponse")
ModelMetadataRequest = _message("ModelMetadataRequest")
ModelMetadataResponse = _message("ModelMetadataResponse")
ModelInferRequest = _message("ModelInferRequest")
ModelInferResponse = _message("ModelInferResponse")
InferParameter = _message("InferParameter")
