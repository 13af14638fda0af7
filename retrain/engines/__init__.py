"""Files that hold a classifier -> scores of pixels.

The modules, in the order in which data flows (each imports only from those before it):

============  ===================================================================
settings      which classifier is used, and how photos are fed to it: the flags
reading       read a file that may be anything; the labels of one
program       what each format gives: what is inside of a file, and a program
graph_texts   strings that a TensorFlow graph carries
safe          refuse a graph that could do harm
frozen_graph  TensorFlow's frozen graphs
saved_model   TensorFlow's SavedModels
safe_onnx     refuse an ONNX model that could do harm
onnx          ONNX models
flat          read a flatbuffer that may be anything
safe_lite     refuse a LiteRT model that could do harm
lite          LiteRT files
formats       all formats, and which one a file is in
engine        pixels -> scores, by a classifier of any format
============  ===================================================================
"""
