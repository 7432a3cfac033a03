"""What the layers of Keras 1.2.2 computed, in float64 NumPy, from its own weights in its own layout.

Written after the arithmetic of its two backends: Theano's convolutions turn the kernel around, pad
"same" by half a window on both sides and cut what is too much; TensorFlow's correlate.
"""

import itertools

import numpy as np


def hard_sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "softmax": softmax,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
}


def last(x, ordering):
    return np.moveaxis(x, 1, -1) if ordering == "th" else x


def unlast(x, ordering):
    return np.moveaxis(x, -1, 1) if ordering == "th" else x


def pads_of_same(size, window, stride, backend):
    """How much "same" puts before and after an axis, and how many results there are."""
    count = -(-size // stride)
    if backend == "theano":
        return window // 2, window // 2, count
    total = max((count - 1) * stride + window - size, 0)
    return total // 2, total - total // 2, count


def convolve(x, kernel, strides, border_mode, backend, rates=None):
    """x: (samples, …, channels); kernel: (…, channels, filters)."""
    rank = kernel.ndim - 2
    rates = rates or (1,) * rank
    counts = [None] * rank
    for axis in range(rank):
        window = (kernel.shape[axis] - 1) * rates[axis] + 1
        if border_mode == "same":
            before, after, counts[axis] = pads_of_same(x.shape[axis + 1], window, strides[axis], backend)
            x = np.pad(
                x, [(before, after) if number == axis + 1 else (0, 0) for number in range(x.ndim)]
            )
    if backend == "theano":
        kernel = kernel[(slice(None, None, -1),) * rank]
    outputs = [
        (x.shape[axis + 1] - (kernel.shape[axis] - 1) * rates[axis] - 1) // strides[axis] + 1
        for axis in range(rank)
    ]
    y = np.zeros((x.shape[0], *outputs, kernel.shape[-1]))
    for place in itertools.product(*map(range, kernel.shape[:rank])):
        cut = tuple(
            slice(p * r, p * r + (n - 1) * s + 1, s)
            for p, r, n, s in zip(place, rates, outputs, strides, strict=True)
        )
        y += x[(slice(None), *cut)] @ kernel[place]
    return y[(slice(None), *(slice(count) for count in counts))]


def deconvolve(x, kernel, output, strides, border_mode, backend):
    """The gradient of `convolve` in its input; kernel: (rows, columns, channels in, channels out)."""
    rank = kernel.ndim - 2
    before = [0] * rank
    if border_mode == "same":
        before = [
            pads_of_same(output[axis], kernel.shape[axis], strides[axis], backend)[0]
            for axis in range(rank)
        ]
    if backend == "theano":
        kernel = kernel[(slice(None, None, -1),) * rank]
    y = np.zeros((x.shape[0], *output, kernel.shape[-1]))
    for at in itertools.product(*map(range, x.shape[1:-1])):
        for place in itertools.product(*map(range, kernel.shape[:rank])):
            to = [i * s + p - b for i, s, p, b in zip(at, strides, place, before, strict=True)]
            if all(0 <= index < size for index, size in zip(to, output, strict=True)):
                y[(slice(None), *to)] += x[(slice(None), *at)] @ kernel[place]
    return y


def pool(x, size, strides, border_mode, mode, backend):
    """Padding counts neither in a maximum nor in an average."""
    rank = len(size)
    x = x.astype("float64")
    counts = []
    for axis in range(rank):
        length, window, stride = x.shape[axis + 1], size[axis], strides[axis]
        before = after = 0
        count = (length - window) // stride + 1
        if border_mode == "same":
            before, after, count = pads_of_same(length, window, stride, "tensorflow")
            if backend == "theano":
                before = after = window - 2 if window % 2 else window - 1
        x = np.pad(
            x,
            [(before, after) if number == axis + 1 else (0, 0) for number in range(x.ndim)],
            constant_values=np.nan,
        )
        counts.append(count)
    y = np.zeros((x.shape[0], *counts, x.shape[-1]))
    for at in itertools.product(*map(range, counts)):
        cut = tuple(slice(i * s, i * s + k) for i, s, k in zip(at, strides, size, strict=True))
        seen = x[(slice(None), *cut)]
        axes = tuple(range(1, rank + 1))
        y[(slice(None), *at)] = np.nanmax(seen, axes) if mode == "Max" else np.nanmean(seen, axes)
    return y


def simple_rnn(x, w, activation=np.tanh, h=None):
    W, U, b = w
    h, states = np.zeros((len(x), U.shape[0])), []
    for step in range(x.shape[1]):
        h = activation(x[:, step] @ W + h @ U + b)
        states.append(h)
    return np.stack(states, 1)


def lstm(x, w, inner=hard_sigmoid, activation=np.tanh):
    """w: W_i, U_i, b_i, W_c, U_c, b_c, W_f, U_f, b_f, W_o, U_o, b_o."""
    gates = [w[3 * n : 3 * n + 3] for n in range(4)]
    h = c = np.zeros((len(x), w[1].shape[0]))
    states = []
    for step in range(x.shape[1]):
        i, candidate, f, o = (x[:, step] @ W + h @ U + b for W, U, b in gates)
        c = inner(f) * c + inner(i) * activation(candidate)
        h = inner(o) * activation(c)
        states.append(h)
    return np.stack(states, 1)


def gru(x, w, inner=hard_sigmoid, activation=np.tanh):
    """w: W_z, U_z, b_z, W_r, U_r, b_r, W_h, U_h, b_h; the reset comes before the product."""
    (Wz, Uz, bz), (Wr, Ur, br), (Wh, Uh, bh) = (w[3 * n : 3 * n + 3] for n in range(3))
    h = np.zeros((len(x), Uz.shape[0]))
    states = []
    for step in range(x.shape[1]):
        xt = x[:, step]
        z, r = inner(xt @ Wz + h @ Uz + bz), inner(xt @ Wr + h @ Ur + br)
        h = z * h + (1 - z) * activation(xt @ Wh + (r * h) @ Uh + bh)
        states.append(h)
    return np.stack(states, 1)


def srelu(x, t_left, a_left, t_right, a_right):
    right = t_left + np.abs(t_right)
    return np.where(
        x < t_left, t_left + a_left * (x - t_left), np.where(x > right, right + a_right * (x - right), x)
    )


def batch_norm(x, w, divisor, epsilon, axis=-1):
    """w: gamma, beta, running_mean, running_std; `divisor` is the release's function of (s, epsilon)."""
    shape = [1] * x.ndim
    shape[axis] = -1
    gamma, beta, mean, s = (array.astype("float64").reshape(shape) for array in w)
    return gamma * (x - mean) / divisor(s, epsilon) + beta
