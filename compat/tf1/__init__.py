"""Batch normalisation as TensorFlow 1 spelled it: contrib, tf.layers, tf_slim, and their checkpoints."""
