"""A layer of tf_keras for each row of Keras 2's table, and the inputs of models of them."""

import tf_keras

from draws import RANDOM

L = tf_keras.layers
CLOSE = {"rtol": 2e-5, "atol": 2e-5}  # two float32 computations of sums of about a hundred products


def draw(*shape):
    return RANDOM.normal(0.1, 0.5, shape).astype("float32")


def image_layers():
    """Layers of images (9, 8, 4)."""
    return [
        L.Conv2D(3, (3, 2), activation="hard_sigmoid", kernel_regularizer="l2"),
        L.Conv2D(6, 4, strides=2, padding="same", use_bias=False, kernel_initializer="he_normal"),
        L.Conv2D(4, 2, dilation_rate=(2, 1), groups=2, padding="same", bias_constraint="non_neg"),
        L.Conv2DTranspose(3, 3, strides=2, padding="same"),
        L.Conv2DTranspose(3, (2, 3), strides=(2, 1), output_padding=(1, 0)),
        L.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same"),
        L.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu"),
        L.BatchNormalization(),
        L.BatchNormalization(axis=2, scale=False, momentum=0.9, epsilon=0.01),
        L.BatchNormalization(axis=[1, 3], center=False),
        tf_keras.layers.experimental.SyncBatchNormalization(),
        L.LayerNormalization(axis=[2, 3], epsilon=0.1),
        L.MaxPooling2D(3, strides=2, padding="same"),
        L.AveragePooling2D((2, 3), padding="same"),
        L.GlobalMaxPooling2D(),
        L.GlobalAveragePooling2D(keepdims=True),
        L.UpSampling2D((2, 3), interpolation="bilinear"),
        L.ZeroPadding2D(((1, 2), (0, 3))),
        L.Cropping2D((1, 2)),
        L.SpatialDropout2D(0.5),
        L.Flatten(),
        L.Permute((3, 1, 2)),
        L.Reshape((-1, 4)),
        L.ReLU(max_value=0.6, negative_slope=0.1, threshold=0.05),
        L.LeakyReLU(0.2),
        L.ELU(0.7),
        L.PReLU(shared_axes=[1, 2], alpha_initializer="uniform"),
        L.PReLU(),
        L.ThresholdedReLU(0.3),
        L.Softmax(axis=1),
        L.Rescaling(2.0, offset=-1.0),
        *(
            L.Activation(name)
            for name in [
                "elu",
                "selu",
                "softplus",
                "softsign",
                "exponential",
                "gelu",
                "swish",
                "tanh",
                "linear",
                "softmax",
                "hard_sigmoid",
            ]
        ),
        L.ActivityRegularization(0.1),
        L.Dropout(0.5),
        L.GaussianDropout(0.5),
        L.GaussianNoise(0.5),
        L.AlphaDropout(0.5),
        L.Dense(3, activation="sigmoid"),
    ]


def sequence_layers():
    """Layers of sequences (6, 4)."""
    return [
        L.Conv1D(3, 3, padding="causal", dilation_rate=2),
        L.Conv1D(3, 4, strides=2, padding="same"),
        L.Conv1DTranspose(3, 3, strides=2),
        L.DepthwiseConv1D(3, padding="same"),
        L.SeparableConv1D(3, 3),
        L.MaxPooling1D(2, padding="same"),
        L.AveragePooling1D(3, strides=1),
        L.GlobalMaxPooling1D(),
        L.GlobalAveragePooling1D(),
        L.UpSampling1D(3),
        L.ZeroPadding1D((1, 2)),
        L.Cropping1D(1),
        L.SpatialDropout1D(0.5),
        L.LSTM(3, return_sequences=True, recurrent_activation="hard_sigmoid", recurrent_dropout=0.1),
        L.GRU(3, go_backwards=True),
        L.GRU(3, reset_after=False, recurrent_activation="hard_sigmoid", return_sequences=True),
        L.SimpleRNN(3, use_bias=False),
        L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="ave"),
        L.Bidirectional(L.LSTM(3), backward_layer=L.LSTM(3, go_backwards=True, activation="relu")),
        L.TimeDistributed(L.Dense(2, activation="tanh")),
        L.TimeDistributed(L.BatchNormalization(epsilon=0.1)),
        L.TimeDistributed(tf_keras.Sequential([L.Dense(3), L.BatchNormalization(), L.Dense(2)])),
        L.Masking(0.0),
    ]


def volume_layers():
    """Layers of volumes (4, 5, 4, 2)."""
    return [
        L.Conv3D(3, (2, 3, 2), padding="same", strides=(1, 2, 1)),
        L.Conv3DTranspose(2, 2, strides=2),
        L.MaxPooling3D(2),
        L.AveragePooling3D((2, 1, 2), padding="same"),
        L.GlobalMaxPooling3D(),
        L.GlobalAveragePooling3D(),
        L.UpSampling3D((1, 2, 1)),
        L.ZeroPadding3D(1),
        L.Cropping3D(((1, 0), (1, 1), (0, 1))),
        L.SpatialDropout3D(0.5),
        L.BatchNormalization(),
        L.ConvLSTM2D(3, 2, padding="same", recurrent_activation="hard_sigmoid"),
    ]
