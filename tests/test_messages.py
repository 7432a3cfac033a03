"""Other libraries' errors, as ours quote them."""

import keras
import pytest
import tensorflow as tf

from tfbn.messages import one_line


def test_the_error_of_a_layer_loses_its_decoration():
    class Broken(keras.layers.Layer):
        def call(self, x):
            raise ValueError("two\nlines")

    with pytest.raises(ValueError, match="Arguments received by") as caught:
        Broken()(tf.ones((1, 2)))
    assert one_line(caught.value) == "Exception encountered when calling Broken.call(). two lines"


def test_the_error_of_a_kernel_loses_its_name():
    with pytest.raises(tf.errors.InvalidArgumentError, match="function_node") as caught:
        tf.linalg.matmul(tf.ones((2, 3)), tf.ones((2, 3)))
    assert one_line(caught.value).startswith("Matrix size-incompatible: In[0]: [2,3], In[1]: [2,3]")
    assert "Op:" not in one_line(caught.value)


def test_an_error_without_a_message_is_named():
    assert one_line(MemoryError()) == "MemoryError"
