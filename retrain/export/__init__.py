"""A trained layer and the network below it -> files that other programs load; and from there.

The modules, in the order in which data flows (each imports only from those before it):

============  ===================================================================
graph_spec    the exported graph's tensor names
settings      where the classifier is written, and which one is used: the flags
frozen_graph  head + InceptionV3 -> frozen graph, labels
safe          refuse a graph that could do harm
reading       read a frozen graph and its labels; find its input and output
engine        pixels -> scores, by a graph that was read
============  ===================================================================
"""
