"""What tests of exports share."""

from pathlib import Path

import tfbn


def everything(folder):
    """Every file below a folder, hidden ones too, with its content."""
    return {path: path.is_file() and path.read_bytes() for path in Path(folder).rglob("*")}


def wrong_fold(model):
    folded, report = tfbn.folding.keras.build.fold(model)
    folded.layers[1].bias.assign(folded.layers[1].bias + 1.0)
    return folded, report
