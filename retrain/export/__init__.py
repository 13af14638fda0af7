"""A trained classifier -> files that other programs load.

The modules, in the order in which data flows (each imports only from those before it):

============  ===================================================================
graph_spec    the exported graph's tensor names
settings      where the classifier is written: the flags
frozen_graph  head + InceptionV3 -> frozen graph, labels
============  ===================================================================
"""
