"""Files that hold a classifier -> scores of pixels.

The modules, in the order in which data flows (each imports only from those before it):

============  ===================================================================
settings      which classifier is used, and how photos are fed to it: the flags
program       what each format gives: what is inside of a file, and a program
openvino      TensorFlow's graphs by OpenVINO, without TensorFlow
frozen_graph  TensorFlow's frozen graphs
saved_model   TensorFlow's SavedModels
onnx          ONNX models
lite          LiteRT files
formats       all formats, and which one a file is in
engine        pixels -> scores, by a classifier of any format
============  ===================================================================
"""
