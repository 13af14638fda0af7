"""Cached rows -> the images of each set.

The modules, in the order in which data flows (each imports only from those before it):

========  =====================================================
settings  which photos train, validate and test: the flags
split     groups -> training, validation or testing
groups    which photos belong together
matching  label folders <-> the labels of a classifier
dataset   cache + split -> X, y of each set
pixels    images of a set -> their pixels, read once more
variants  the same at a cut, with distorted variants to train on
folds     images -> parts for a cross-validation
========  =====================================================
"""
