"""Where Keras 3 has what Keras 1 and 2 kept elsewhere: a table for the command `tfbn migrate`.

Only what is the same thing under another path: a layer whose arguments were renamed is imported from
its new place, and its arguments are reported by the command. Keras is not imported here.
"""

from __future__ import annotations

BATCH_NORMALIZATION = "keras.layers.normalization.BatchNormalization"
OURS = "tfbn.compat.BatchNormalization"  # with Keras 1's arguments
THEIRS = "keras.layers.BatchNormalization"  # with Keras 2's

_SPATIAL_DROPOUTS = "SpatialDropout1D SpatialDropout2D SpatialDropout3D"
_MERGES = "Add Average Concatenate Dot Maximum Minimum Multiply Subtract"
_DIMENSIONS = ("1D", "2D", "3D")
_POOLINGS = " ".join(
    f"{kind}{dimension}"
    for kind in ("MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling")
    for dimension in _DIMENSIONS
)
_LAYERS = {
    "core": "Activation ActivityRegularization Dense Dropout Flatten Lambda Layer Masking Permute "
    f"RepeatVector Reshape {_SPATIAL_DROPOUTS}",
    "convolutional": "Conv1D Conv2D Conv3D Conv2DTranspose Conv3DTranspose Cropping1D Cropping2D "
    "Cropping3D DepthwiseConv2D SeparableConv1D SeparableConv2D UpSampling1D UpSampling2D UpSampling3D "
    "ZeroPadding1D ZeroPadding2D ZeroPadding3D AveragePooling1D AveragePooling2D AveragePooling3D "
    "MaxPooling1D MaxPooling2D MaxPooling3D",
    "pooling": _POOLINGS,
    "recurrent": "GRU GRUCell LSTM LSTMCell RNN SimpleRNN SimpleRNNCell StackedRNNCells",
    "convolutional_recurrent": "ConvLSTM2D",
    "embeddings": "Embedding",
    "advanced_activations": "ELU LeakyReLU PReLU ReLU Softmax",
    "merge": f"{_MERGES} {_MERGES.lower()}",
    "wrappers": "Bidirectional TimeDistributed Wrapper",
    "noise": f"AlphaDropout GaussianDropout GaussianNoise {_SPATIAL_DROPOUTS}",
    "normalization": "LayerNormalization",
}
_LOSSES = (
    "binary_crossentropy categorical_crossentropy categorical_hinge hinge kl_divergence "
    "mean_absolute_error mean_absolute_percentage_error mean_squared_error "
    "mean_squared_logarithmic_error poisson sparse_categorical_crossentropy squared_hinge"
)
# Module of Keras 1 or 2, module of Keras 3, the names that are there.
_MODULES = [(f"keras.layers.{module}", "keras.layers", names) for module, names in _LAYERS.items()]
_MODULES += [
    ("keras.engine", "keras.layers", "Input InputSpec Layer"),
    ("keras.engine", "keras.models", "Model"),
    ("keras.engine.topology", "keras.layers", "Input InputSpec Layer"),
    ("keras.engine.training", "keras.models", "Model"),
    ("keras.utils.np_utils", "keras.utils", "normalize to_categorical"),
    ("keras.utils.data_utils", "keras.utils", "get_file"),
    ("keras.utils.generic_utils", "keras.utils", "Progbar custom_object_scope get_custom_objects"),
    ("keras.utils.layer_utils", "keras.utils", "get_source_inputs"),
    ("keras.utils.vis_utils", "keras.utils", "model_to_dot plot_model"),
    ("keras.objectives", "keras.losses", _LOSSES),
]

# What is there, by its old path. Of a module, too, where all its users need is in the new one.
MOVED: dict[str, str] = {
    f"{old}.{name}": f"{new}.{name}" for old, new, names in _MODULES for name in names.split()
}
MOVED |= {"keras.utils.np_utils": "keras.utils", "keras.objectives": "keras.losses"}

_CONVOLUTIONS = "Keras 3 has the name with other arguments (a third number is a stride there): write {}."
_NO_LAYER = "Keras 3 has no such layer: {}."
# What is not, by the last part of its name: what to do.
GONE: dict[str, str] = {
    "Convolution1D": _CONVOLUTIONS.format("Conv1D(filters, length, padding=…)"),
    "Convolution2D": _CONVOLUTIONS.format("Conv2D(filters, (rows, columns), padding=…)"),
    "Convolution3D": _CONVOLUTIONS.format("Conv3D(filters, (a, b, c), padding=…)"),
    "SeparableConvolution2D": _CONVOLUTIONS.format("SeparableConv2D(filters, (rows, columns))"),
    "Deconvolution2D": _NO_LAYER.format("write Conv2DTranspose(filters, (rows, columns), strides=…)"),
    "AtrousConvolution1D": _NO_LAYER.format("write Conv1D(…, dilation_rate=…)"),
    "AtrousConvolution2D": _NO_LAYER.format("write Conv2D(…, dilation_rate=…)"),
    "MaxoutDense": _NO_LAYER.format("write Dense(units · features), Reshape and a maximum"),
    "Highway": _NO_LAYER.format("write its sum, t · h(x) + (1 − t) · x, of Dense layers"),
    "TimeDistributedDense": _NO_LAYER.format("write TimeDistributed(Dense(units)), or Dense(units)"),
    "Merge": _NO_LAYER.format("call Add, Multiply, Concatenate, … on tensors"),
    "merge": "Keras 3 has no merge(…, mode=…): write add, multiply, concatenate, average or dot.",
    "LocallyConnected1D": _NO_LAYER.format("tf_keras has it"),
    "LocallyConnected2D": _NO_LAYER.format("tf_keras has it"),
    "SReLU": _NO_LAYER.format("write a layer of your own"),
    "ParametricSoftplus": _NO_LAYER.format("write a layer of your own"),
    "ThresholdedReLU": _NO_LAYER.format("write ReLU(threshold=…)"),
    "Recurrent": _NO_LAYER.format("derive from Layer, or give a cell to RNN"),
}

# Arguments of Keras 1 that Keras 3 knows by another name, or not at all.
ARGUMENTS: dict[str, str] = {
    "border_mode": "padding=",
    "nb_epoch": "epochs=",
    "nb_filter": "filters=",
    "nb_row": "kernel_size=",
    "nb_col": "kernel_size=",
    "subsample": "strides=",
    "subsample_length": "strides=",
    "filter_length": "kernel_size=",
    "pool_length": "pool_size=",
    "dim_ordering": 'data_format="channels_first" for "th", "channels_last" for "tf"',
    "W_regularizer": "kernel_regularizer=",
    "b_regularizer": "bias_regularizer=",
    "U_regularizer": "recurrent_regularizer=",
    "W_constraint": "kernel_constraint=",
    "b_constraint": "bias_constraint=",
    "samples_per_epoch": "steps_per_epoch=, counted in batches",
    "nb_val_samples": "validation_steps=, counted in batches",
    "nb_worker": "workers=",
}
