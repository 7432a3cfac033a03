"""`tfbn migrate`: import lines of TensorFlow 1 and Keras 1 rewritten, and advice on the rest.

`targets` knows what a name is called today, `names` what a file means by its names, `programs` whether
it is a program of TensorFlow 1, `imports` rewrites statements, `advice` and `keras_advice` find what
rewriting does not mend, `sources` reads and writes bytes, `one_file` does one file, `run` all of them.
Neither TensorFlow nor Keras is imported here.
"""
