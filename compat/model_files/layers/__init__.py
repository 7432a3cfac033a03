"""The layers of Keras 1 and 2, each by the layer of Keras 3 that does the same."""
