"""The model of Keras 3, built from the data of a file."""
