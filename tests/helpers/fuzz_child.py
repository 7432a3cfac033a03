"""A process that exports damaged files, one after the other, and says of each what came of it.

    python fuzz_child.py FOLDER FIRST LAST

In FOLDER are `model`, a SavedModel, and `frozen.pb`. What TensorFlow itself does not survive ends the
process; the test starts another one behind that case.
"""

import os
import random
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def damaged_bytes(data, draw):
    """Truncated, or with some bytes changed, left out or repeated."""
    kind = draw.choice(["truncate", "change", "change", "leave out", "repeat"])
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.randrange(1, 64))
    if kind == "truncate":
        return data[:start]
    if kind == "change":
        new = bytearray(data)
        for _ in range(draw.choice([1, 1, 2, 10])):
            new[draw.randrange(len(new))] = draw.randrange(256)
        return bytes(new)
    return (
        data[:start] + data[end:] if kind == "leave out" else data[:end] + data[start:end] + data[end:]
    )


def damaged_nodes(nodes, draw):
    """Nodes that read others, themselves or nothing; of other operations, names and attributes."""
    for _ in range(draw.choice([1, 1, 2, 5])):
        node, other = draw.choice(nodes), draw.choice(nodes)
        kind = draw.choice(["read", "read", "read", "wait", "drop", "op", "name", "attribute", "copy"])
        if kind == "read" and node.input:
            node.input[draw.randrange(len(node.input))] = other.name
        elif kind == "wait":
            node.input.append(f"^{other.name}")
        elif kind == "drop" and node.input:
            del node.input[-1]
        elif kind == "op":
            node.op = draw.choice([other.op, "NoSuchOperation", "Identity", "AddV2", "Merge"])
        elif kind == "name":
            node.name = other.name
        elif kind == "attribute" and node.attr:
            key = draw.choice(sorted(node.attr))
            if key in other.attr:
                node.attr[key].CopyFrom(other.attr[key])
            else:
                del node.attr[key]
        elif kind == "copy":
            node.CopyFrom(other)


def damaged(folder, number):
    """Write case `number`; what to export."""
    import tensorflow as tf  # noqa: PLC0415
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    draw = random.Random(number)
    source = folder / ("model" if number % 2 else "frozen.pb")
    case = folder / ("case" if number % 2 else "case.pb")
    if number % 2:
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(source, case)
    file = case / "saved_model.pb" if number % 2 else case
    data = (source / "saved_model.pb" if number % 2 else source).read_bytes()
    if draw.random() < 0.5:
        file.write_bytes(damaged_bytes(data, draw))
        return case
    read = saved_model_pb2.SavedModel() if number % 2 else tf.compat.v1.GraphDef()
    read.ParseFromString(data)
    if number % 2:
        graph = read.meta_graphs[0].graph_def
        nodes = draw.choice([graph.node, *(function.node_def for function in graph.library.function)])
    else:
        nodes = read.node
    damaged_nodes(nodes, draw)
    file.write_bytes(read.SerializeToString())
    return case


def main(folder, first, last):
    import tfbn  # noqa: PLC0415

    folder = Path(folder)
    for number in range(int(first), int(last)):
        case = damaged(folder, number)
        print("begins", number, flush=True)
        try:
            tfbn.export(case, folder / "out")
            print("exported", number, flush=True)
            shutil.rmtree(folder / "out")
        except Exception as error:
            kind = "ValueError" if isinstance(error, ValueError) else type(error).__name__
            print(kind, number, " ".join(str(error).split())[:300], flush=True)
        left = sorted(path.name for path in folder.iterdir())
        if set(left) - {"model", "frozen.pb", "case", "case.pb"}:
            print("left", number, left, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
