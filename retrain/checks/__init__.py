"""A classifier's files, which may be anything -> refused, or harmless.

The modules, in the order in which data flows (each imports only from those before it):

===========  ====================================================================
reading      read a file of any kind and size; the labels of one
graph_texts  strings that a TensorFlow graph carries
safe_graph   refuse a TensorFlow graph that could do harm
flat         read a flatbuffer that may be anything
safe_lite    refuse a LiteRT model that could do harm
safe_onnx    refuse an ONNX model that could do harm
===========  ====================================================================
"""
