"""The files of Keras 1 and 2 as data: nothing here imports Keras."""
