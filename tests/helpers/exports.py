"""What tests of exports share."""

from pathlib import Path

from tensorflow.core.protobuf import saved_model_pb2

import tfbn


def everything(folder):
    """Every file below a folder, hidden ones too, with its content."""
    return {path: path.is_file() and path.read_bytes() for path in Path(folder).rglob("*")}


def operations(path):
    """The kinds of all nodes of a SavedModel, in functions too."""
    read = saved_model_pb2.SavedModel()
    read.ParseFromString((path / "saved_model.pb").read_bytes())
    (graph,) = (graph.graph_def for graph in read.meta_graphs)
    inside = (node for function in graph.library.function for node in function.node_def)
    return [node.op for node in (*graph.node, *inside)]


def wrong_fold(model):
    folded, report = tfbn.folding.keras.build.fold(model)
    folded.layers[1].bias.assign(folded.layers[1].bias + 1.0)
    return folded, report
