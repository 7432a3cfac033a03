"""TensorFlow 1's names for its programs: `tf.contrib`, `tf.layers`, and all of `tf.compat.v1`.

`lookup` finds what stands for a name, `modules` makes modules of it that can be imported, `install` lets
`import tensorflow.contrib` reach them, `programs` gives the names to whole programs, and `enable`
switches TensorFlow.
"""
