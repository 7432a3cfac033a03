"""Keras models as graphs of the core, and back: `read`, the `tables` of rules and targets, `build`."""
