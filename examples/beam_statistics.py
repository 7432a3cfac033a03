"""Population statistics of any amount of data, by Apache Beam: shards are measured where they are.

Saves a small network and scikit-learn's handwritten digits in eight shards, measures these in two worker
processes, adds the statistics up, and compares them with those of one process. For a cluster pass the
options of its runner, and paths that all workers can read.

    python examples/beam_statistics.py [--runner=DirectRunner --direct_num_workers=4 …]
"""

import io
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import apache_beam as beam
import keras
import numpy as np
from apache_beam.io import fileio
from apache_beam.io.filesystems import FileSystems
from sklearn.datasets import load_digits

import tfbn

BATCH = 32
TWO_WORKERS = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
ROUNDING = 1e-12  # of float64: the shards are added up in another order


class MeasureShard(beam.DoFn):
    """The statistics of one file. It holds whole batches: what is cut is the data, not a batch."""

    def __init__(self, model: str) -> None:
        self.model = model

    def setup(self) -> None:
        self.loaded = keras.models.load_model(self.model)

    def process(self, path: str) -> Iterator[tfbn.Statistics]:
        with FileSystems.open(path) as file:
            images = np.load(io.BytesIO(file.read()))
        yield tfbn.measure(self.loaded, images, verbose=0)


class AddUp(beam.CombineFn):
    """`tfbn.Statistics` add up in any order, which is all that Beam asks for."""

    def create_accumulator(self) -> tfbn.Statistics:
        return tfbn.Statistics()

    def add_input(self, total: tfbn.Statistics, shard: tfbn.Statistics) -> tfbn.Statistics:
        return total.merge(shard)

    def merge_accumulators(self, totals: Iterable[tfbn.Statistics]) -> tfbn.Statistics:
        return tfbn.Statistics().merge(*totals)

    def extract_output(self, total: tfbn.Statistics) -> tfbn.Statistics:
        return total


def measure_shards(model: Path, shards: str, result: Path, options: list[str]) -> None:
    """Write the statistics of all files that match `shards` to `result`."""
    with beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(options)) as pipeline:
        (
            pipeline
            | fileio.MatchFiles(shards)
            | beam.Map(lambda file: file.path)
            | beam.Reshuffle()  # a worker takes the next shard when it has done one
            | beam.ParDo(MeasureShard(str(model)))
            | beam.CombineGlobally(AddUp())
            | beam.Map(lambda total: total.save(result))
        )


def build_network() -> keras.Model:
    layers = keras.layers
    inputs = x = keras.Input((8, 8, 1))
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(tfbn.BatchNorm()(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)), name="digits")


def main(options: list[str]) -> int:
    keras.utils.set_random_seed(0)
    images = load_digits().images[..., None].astype("float32") / 16
    model = build_network()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / "digits.keras")
        for number, start in enumerate(range(0, len(images), 8 * BATCH)):
            np.save(folder / f"shard-{number}.npy", images[start : start + 8 * BATCH])
        measure_shards(
            folder / "digits.keras", f"{folder}/shard-*.npy", folder / "statistics.npz", options
        )
        total = tfbn.Statistics.load(folder / "statistics.npz")
    print(f"{total.samples} images in {total.batches} batches, measured in {number + 1} shards")
    alone = tfbn.population_statistics(model, images, verbose=0)
    off = 0.0
    for path, together in tfbn.recalibrate(model, total).items():
        pairs = ((together.mean, alone[path].mean), (together.variance, alone[path].variance))
        off = max(off, *(float(np.max(np.abs(one / other - 1))) for one, other in pairs))
    print(f"Differs from one process by at most {off:.1g} of a mean or variance.")
    return 0 if off < ROUNDING else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or TWO_WORKERS))
