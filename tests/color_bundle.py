"""A real bundle of two stages whose exits name the main color of a picture; hand-made graphs."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adaptive_split.bundle import GRAPH_INPUT, GRAPH_OUTPUT, file_name, write_bundle

SIDE = 16
COLORS = {"red": (230, 30, 60), "green": (20, 240, 20), "blue": (90, 10, 200)}


def write_graph(path, nodes, **constants):
    """Write a graph of `(operator, inputs, output, attributes)`."""
    values = [numpy_helper.from_array(np.float32(v), name) for name, v in constants.items()]
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], **attributes) for op, ins, out, attributes in nodes],
        "part",
        [helper.make_tensor_value_info(GRAPH_INPUT, TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(GRAPH_OUTPUT, TensorProto.FLOAT, None)],
        values,
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def write_color_bundle(path):
    """Write the bundle into an existing folder."""
    halve = {"kernel_shape": [2, 2], "strides": [2, 2]}
    pool = [("AveragePool", [GRAPH_INPUT], GRAPH_OUTPUT, halve)]
    same = [("Identity", [GRAPH_INPUT], GRAPH_OUTPUT, {})]
    mean_color = [
        ("GlobalAveragePool", [GRAPH_INPUT], "mean", {}),
        ("Flatten", ["mean"], "flat", {}),
        ("Mul", ["flat", "ten"], GRAPH_OUTPUT, {}),
    ]
    for index in (1, 2):
        write_graph(path / file_name("stage", index), pool)
        write_graph(path / file_name("exit", index), mean_color, ten=10)
    write_graph(path / file_name("encoder", 1), same)
    write_graph(path / file_name("decoder", 1), same)
    return write_bundle(
        path,
        name="colors",
        classes=tuple(COLORS),
        input_shape=(3, SIDE, SIDE),
        feature_shapes=((3, 8, 8), (3, 4, 4)),
        code_shapes={1: (3, 8, 8)},
        picture_qualities={1: 8, 2: 20, 4: 45, 8: 80},
        temperatures=(1.0, 1.0),
        provenance={},
    )


def color_pictures():
    """`(file, label, pixels)` of one picture per color."""
    return [
        (f"{name}.png", label, np.full((SIDE, SIDE, 3), color, np.uint8))
        for label, (name, color) in enumerate(COLORS.items())
    ]
