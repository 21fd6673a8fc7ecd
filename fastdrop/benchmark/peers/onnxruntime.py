"""ONNX Runtime: inference."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime

from fastdrop.benchmark.cases import Architecture, Inference, Prepare, Work
from fastdrop.benchmark.peers.base import AbstractPeer

OPSET = 17
IR_VERSION = 8
"""Versions that every installed ONNX Runtime of the last years reads."""


def model(architecture: Architecture) -> bytes:
    """Return the network in ONNX's format: Gemm and Relu in turn."""
    nodes, constants, last = [], [], "x"
    for number, (weight, bias) in enumerate(architecture.starting_values()):
        if number:
            nodes.append(onnx.helper.make_node("Relu", [last], [f"a{number}"]))
            last = f"a{number}"
        constants += [onnx.numpy_helper.from_array(weight, f"w{number}"), onnx.numpy_helper.from_array(bias, f"b{number}")]
        nodes.append(onnx.helper.make_node("Gemm", [last, f"w{number}", f"b{number}"], [f"z{number}"]))
        last = f"z{number}"
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", units])
        for name, units in (("x", architecture.units[0]), (last, architecture.units[-1]))
    ]
    graph = onnx.helper.make_graph(nodes, architecture.name, ends[:1], ends[1:], constants)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    serialized: bytes = made.SerializeToString()
    return serialized


class OnnxRuntime(AbstractPeer):
    """The CPU execution provider."""

    name = distribution = "onnxruntime"

    def __init__(self) -> None:
        self.options: Any = onnxruntime.SessionOptions()

    def set_threads(self, threads: int) -> bool:
        self.options.intra_op_num_threads = threads
        return True

    def inference(self, case: Inference) -> Prepare:
        session = onnxruntime.InferenceSession(model(case.architecture), self.options, providers=["CPUExecutionProvider"])

        def prepare(number: int) -> Work:
            x, _ = case.batches[number % len(case.batches)]
            return lambda: session.run(None, {"x": x})[0]

        return prepare
