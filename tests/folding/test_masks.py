"""tfbn.fold: masks reach whoever looked for them, and change nothing of what folds."""

import keras
import numpy as np
import pytest

import tfbn
from folds import bn, check, functional, weigh
from networks import FLOAT32, outputs, unchanged
from sweeps import thinned

L, ops = keras.layers, keras.ops
STEPS = (5, 4)
# Of four samples: some steps masked, all, none, and those in between.
MASK = np.array([[1, 1, 0, 0, 0], [0] * 5, [1] * 5, [1, 0, 1, 0, 1]], bool)
# Conv1D says that it does not hand its mask on.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not support masking")


def attention(x):
    return L.MultiHeadAttention(2, 3)(x, x)


def steps(layer):
    return L.TimeDistributed(layer)


def summed(x):
    return L.Add()([L.Dense(4)(x), L.Dense(4)(x), L.Dense(4)(x)])


def three():
    inputs = keras.Input(STEPS, dtype=keras.config.dtype_policy().name)
    return keras.Sequential([inputs, bn(), L.Dense(4), L.GRU(4, return_sequences=True), bn()])


# What comes behind the mask; all batch norms of it fold.
FOLDS = {
    "Dense before": lambda: [L.Dense(4), bn(), L.LSTM(3)],
    "Dense behind": lambda: [bn(), L.Dense(4), L.LSTM(3)],
    "LSTM": lambda: [bn(), L.LSTM(3)],
    "GRU": lambda: [bn(), L.GRU(3, return_sequences=True)],
    "zeros for masked steps": lambda: [
        bn(),
        L.RNN(L.GRUCell(3), return_sequences=True, zero_output_for_mask=True),
    ],
    "both ways": lambda: [bn(), L.Bidirectional(L.LSTM(3, return_sequences=True))],
    "Conv1D": lambda: [L.Conv1D(4, 2), bn(), L.LSTM(3)],
    "mean behind": lambda: [bn(), L.GlobalAveragePooling1D(), L.Dense(3)],
    "mean before": lambda: [L.Dense(4), L.GlobalAveragePooling1D(), bn(), L.Activation("tanh")],
    "by steps": lambda: [steps(L.Dense(4)), steps(bn()), L.LSTM(3)],
    "by steps, behind": lambda: [steps(bn()), steps(L.Dense(4)), L.LSTM(3)],
    "Add": lambda: [summed, bn(), L.LSTM(3)],
    "Add and who finds its mask": lambda: [summed, bn(), attention],
    "attention": lambda: [bn(), attention],
    "attention before": lambda: [attention, bn(), L.LSTM(3)],
    "dropout": lambda: [bn(), L.Dropout(0.5), L.GRU(3)],
    "a model inside": lambda: [three(), L.LSTM(3)],
    "several": lambda: [L.Dense(4), bn(), L.LSTM(4, return_sequences=True), bn(), L.GRU(2)],
}


def masking():
    x = np.random.default_rng(0).normal(size=(4, *STEPS))
    return keras.Input(STEPS, dtype=keras.config.dtype_policy().name), L.Masking(), x * MASK[..., None]


def tokens():
    x = np.random.default_rng(0).integers(1, 7, (4, 5))
    return keras.Input((5,)), L.Embedding(7, 4, mask_zero=True), x * MASK


def model_of(inputs, *steps):
    x = inputs
    for step in steps:
        x = step(x)
    return weigh(keras.Model(inputs, x))


def same(model, x, folded, tolerance):
    """Fold and compare; NaN, as the mean of no steps is, stays NaN."""
    with unchanged(model):
        new, report = tfbn.fold(model)
    assert len(report.folded) == folded, str(report)
    assert len(report.kept) == len(report.entries) - folded
    for got, want in zip(outputs(new, x), outputs(model, x), strict=True):
        largest = np.nanmax(np.abs(want))
        np.testing.assert_allclose(got / largest, want / largest, rtol=0, atol=tolerance)
    return report


@pytest.mark.parametrize(
    ("dtype", "tolerance", "source", "name"),
    thinned(2, [("float32", FLOAT32), ("float64", 1e-11)], [masking, tokens], FOLDS),
)
def test_what_has_a_mask_folds_all_the_same(name, source, dtype, tolerance):
    keras.config.set_dtype_policy(dtype)
    *first, x = source()
    model = model_of(*first, *FOLDS[name]())
    number = len(tfbn.fold(model)[1].entries)
    same(model, x.astype(dtype), number, tolerance)


@pytest.mark.parametrize("source", [masking, tokens])
@pytest.mark.parametrize("name", ["LSTM", "Add and who finds its mask", "by steps", "attention"])
def test_models_from_files(name, source, tmp_path):
    """Keras loads the masks of calls as arguments of their own."""
    *first, x = source()
    model_of(*first, *FOLDS[name]()).save(tmp_path / "model.keras")
    same(keras.models.load_model(tmp_path / "model.keras"), x, 1, FLOAT32)


def test_concatenation():
    """Keras makes the mask of zeros that are shaped like the inputs, such as a batch norm's output."""
    tokens, more = keras.Input((5,)), keras.Input(STEPS)
    x = bn()(L.Activation("tanh")(L.Embedding(7, 4, mask_zero=True)(tokens)))
    model = weigh(keras.Model([tokens, more], L.LSTM(3)(L.Concatenate()([x, more]))))
    data = [np.random.default_rng(0).integers(0, 7, (4, 5)), np.ones((4, *STEPS), "float32")]
    try:
        model(data)
    except Exception:
        pytest.skip("Keras 3.8 fails to make the mask of samples whose number it does not know")
    same(model, data, 1, FLOAT32)


def test_a_batch_norm_before_masking_stays():
    x = masking()[-1]
    model = functional(STEPS, L.Activation("tanh"), bn(), L.Masking(), L.LSTM(3))
    check(weigh(model), folded=0, reason="finds by its input's values what is to be masked", x=x)
    model = functional(
        STEPS, L.Dense(4, use_bias=False), L.Masking(name="masking"), bn(), L.Activation("tanh")
    )
    check(weigh(model), folded=0, reason="'masking' finds by its input's values", x=x)
    model = functional(STEPS, L.Dense(4, name="dense"), bn(), L.Masking(), L.LSTM(3))
    check(weigh(model), folded=1, into=["dense"], x=x)


def given_a_mask(read, by_name=True, mask="bool"):
    """A batch norm that is given a mask which its input does not have, and what reads its output."""
    x, told = keras.Input(STEPS), keras.Input((5,), dtype=mask)
    dense = L.Dense(4)(x)
    y = bn()(mask=told, inputs=dense) if by_name else bn()(dense, None, told)
    model = weigh(keras.Model([x, told], read(y, told)))
    return model, [
        np.random.default_rng(0).normal(size=(4, *STEPS)).astype("float32"),
        MASK.astype(mask),
    ]


@pytest.mark.parametrize("by_name", [True, False])
def test_a_mask_of_its_own_stays_with_the_batch_norm_for_who_finds_it_there(by_name):
    finds = lambda y, mask: L.GRU(3)(y, training=False)  # noqa: E731
    model, x = given_a_mask(finds, by_name)
    new, report = tfbn.fold(model)
    found = "gru" in str(report)  # Keras 3.8 hands no mask on that a call is given
    assert found or "with a mask that its input does not have" in report.kept[0].reason
    np.testing.assert_allclose(new(x), model(x), rtol=1e-5, atol=1e-6)
    tells = lambda y, mask: L.GRU(3)(y, mask=mask)  # noqa: E731
    model, x = given_a_mask(tells, by_name)
    same(model, x, 1, FLOAT32)


def test_a_mask_of_numbers():
    """Which may be a batch norm's output itself."""
    model, x = given_a_mask(lambda y, mask: L.GRU(3)(y, mask=mask), mask="float32")
    same(model, x, 0, FLOAT32)
    x, other = keras.Input(STEPS), keras.Input((5,))
    mask = bn()(L.Activation("tanh")(other))
    model = weigh(keras.Model([x, other], L.GlobalAveragePooling1D()(x, mask=mask)))
    data = [np.ones((4, *STEPS), "float32"), np.random.default_rng(0).normal(size=(4, 5))]
    report = same(model, data, 0, FLOAT32)
    assert "is called with a mask of numbers" in report.kept[0].reason


class Whole(L.Layer):
    """A layer that is not entered, and hands what it finds to the one inside it."""

    def __init__(self, inner, **own):
        super().__init__(**own)
        self.inner = inner

    def get_config(self):
        return super().get_config() | {"inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config["inner"])
        return cls(inner, **{name: value for name, value in config.items() if name != "inner"})

    def call(self, x):
        return self.inner(x)


@pytest.mark.parametrize("layer", [L.Multiply, L.Maximum, L.Minimum, None])
def test_a_mask_of_its_own_is_found_without_a_parameter_for_it(layer):
    def finds(y, mask):
        return Whole(L.GRU(3))(y) if layer is None else layer()([y, ops.sigmoid(y)])

    model, x = given_a_mask(finds)
    same(model, x, 0, FLOAT32)


class Named(L.Layer):
    """Masks by a `compute_mask` of its own, as KerasHub's embeddings do."""

    def __init__(self):
        super().__init__()
        self.table = L.Embedding(7, 4)

    def call(self, words):
        return self.table(words)

    def compute_mask(self, words, mask=None):
        return ops.not_equal(words, 0)


@pytest.mark.parametrize("table", [Named, lambda: Whole(L.Embedding(7, 4, mask_zero=True))])
def test_masks_that_layers_of_the_user_make(table):
    words, more = keras.Input((5,)), keras.Input(STEPS)
    y = bn()(L.Multiply()([L.Dense(4)(table()(words)), more]))
    model = weigh(keras.Model([words, more], ops.tanh(y)), offset=False)
    data = [tokens()[-1], np.random.default_rng(0).normal(size=(4, *STEPS)).astype("float32")]
    same(model, data, 0, FLOAT32)


@tfbn.batch_norm_at_inference
class Unmasking(L.BatchNormalization):
    def __init__(self, **own):
        super().__init__(**own)
        self.supports_masking = False

    def call(self, x, training=None):
        return super().call(x, training=training)


def test_a_batch_norm_that_takes_masks_off_its_input_stays():
    for source in (masking, tokens):
        *first, x = source()
        model = model_of(*first, L.Dense(4), Unmasking(), L.LSTM(3))
        report = same(model, x, 0, FLOAT32)
        assert "does not support masking" in report.kept[0].reason
    model = weigh(functional(STEPS, L.Dense(4), Unmasking(), L.LSTM(3)))
    same(model, masking()[-1], 1, FLOAT32)


@pytest.mark.parametrize("source", [masking, tokens])
def test_attention_takes_the_mask_off_what_it_is_given(source):
    """Without the batch norm that would be the residual, where the next attention looks for it."""

    def block(x):
        x = L.Identity()(x)
        return attention(L.Add()([x, attention(bn()(L.Dropout(0.1)(x)))]))

    *first, x = source()
    model = model_of(*first, block)
    report = same(model, x, 0, FLOAT32)
    assert "which MultiHeadAttention takes off its inputs" in report.kept[0].reason


class Attending(L.Layer):
    def __init__(self, **own):
        super().__init__(**own)
        self.attention = L.MultiHeadAttention(2, 3)
        self.supports_masking = True

    def call(self, x):
        return self.attention(x, x)


@pytest.mark.parametrize("kind", [L.MultiHeadAttention, Attending])
@pytest.mark.parametrize("behind", [L.Identity, lambda: L.Dense(4)])
def test_attention_took_the_mask_off_what_is_added_to_it(behind, kind):
    """The batch norm is told of a mask, with which the next attention finds one again."""

    def block(x):
        x = L.Activation("tanh")(x)
        attended = Attending()(x) if kind is Attending else attention(x)
        return attention(bn()(behind()(L.Add()([attended, L.Dropout(0.1)(x)]))))

    *first, x = tokens()
    report = same(model_of(*first, block), x, 0, FLOAT32)
    assert "does not have when the model runs" in report.kept[0].reason


@pytest.mark.parametrize("name", ["before", "behind"])
def test_a_product_has_ones_where_one_factor_is_masked(name):
    words, more = keras.Input((5,)), keras.Input(STEPS)
    x = L.Embedding(7, 4, mask_zero=True)(words)
    if name == "before":
        y = L.Multiply()([bn()(L.Activation("tanh")(x)), more])
    else:
        y = L.Activation("tanh")(bn()(L.Multiply()([L.Dense(4)(x), more])))
    model = weigh(keras.Model([words, more], L.Dense(3)(y)), offset=False)
    data = [tokens()[-1], np.random.default_rng(0).normal(size=(4, *STEPS)).astype("float32")]
    report = same(model, data, 0, FLOAT32)
    assert "puts 1 in the place of what is masked" in report.kept[0].reason


def test_a_model_that_is_given_a_mask():
    """Its inputs count as inputs of the whole, unless its layers would find that mask on them anyway."""
    x, mask = keras.Input(STEPS), keras.Input((5,), dtype="bool")
    model = weigh(keras.Model([x, mask], three()(L.Activation("tanh")(x), mask=mask)))
    report = same(model, [np.ones((4, *STEPS), "float32"), MASK], 1, FLOAT32)
    assert [path.split("/")[-1] for path in report.folded[0].into] == [model.layers[-1].layers[1].name]


def test_a_model_that_is_given_a_mask_and_takes_it_off():
    inner = keras.Sequential([keras.Input(STEPS), L.Dense(4), Unmasking(), L.LSTM(3)])
    x, mask = keras.Input(STEPS), keras.Input((5,), dtype="bool")
    model = weigh(keras.Model([x, mask], inner(x, mask=mask)))
    same(model, [np.random.default_rng(0).normal(size=(4, *STEPS)), MASK], 0, FLOAT32)


def test_what_takes_masks_is_not_entered_by_steps():
    x = np.random.default_rng(0).normal(size=(4, 5, 3, 4)).astype("float32")
    x[0] = 0
    inner = keras.Sequential([keras.Input((3, 4)), L.Dense(4), bn()])
    model = weigh(functional((5, 3, 4), L.Masking(), steps(inner)))
    same(model, x, 0, FLOAT32)
    (kept,) = tfbn.fold(model)[1].kept
    assert "(TimeDistributed), which is given a mask" in kept.reason


def test_a_batch_norm_that_is_entered_by_steps_in_another_call():
    words, more = keras.Input((5,)), keras.Input(STEPS)
    each = steps(keras.Sequential([keras.Input((4,)), bn(), L.Activation("tanh")]))
    masked = L.Embedding(7, 4, mask_zero=True)(words)
    model = weigh(keras.Model([words, more], [each(L.Dense(4)(more)), each(masked)]))
    same(model, [tokens()[-1], np.ones((4, *STEPS), "float32")], 0, FLOAT32)
