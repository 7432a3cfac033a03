"""The old world: batch normalisation as TensorFlow 1 and Keras 1 spelled it, on the new one."""
