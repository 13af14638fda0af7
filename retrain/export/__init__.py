"""A trained classifier -> files that other programs load.

The modules, in the order in which data flows (each imports only from those before it):

=============  ==================================================================
graph_spec     the exported graph's tensor names
settings       where the classifier is written: the flags
about          what made a classifier
decoding       image files -> pixels, in a graph
graph          head + InceptionV3 -> one graph
classifier     what all formats are made from, and what the module of one has
frozen_graph   TensorFlow's frozen graph, and the labels
saved_model    TensorFlow's SavedModel
lite_metadata  what a LiteRT file carries beside the network
lite           a LiteRT file
onnx           ONNX
formats        all formats
=============  ==================================================================
"""
