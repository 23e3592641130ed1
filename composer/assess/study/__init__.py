"""The calibration study: a model pruned once per calibration set, each measured on every domain, as a matrix."""
