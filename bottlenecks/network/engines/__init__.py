"""The frozen network -> rows of pixels: what runs it, and in how many bits.

The modules, in the order in which data flows (each imports only from those before it):

===============  ===============================================================
devices          the GPUs of a machine, and a batch that is shared out among several
bfloat16         the frozen network in half the bits
rounding         kernels -> whole numbers of 8 bits
int8             the numbers of a network in 8 bits, by what photos have shown
openvino_graph   a frozen graph -> an OpenVINO model of the same arithmetic
openvino_run     such a model on this machine's processor
with_tensorflow  the engine that is always there
with_openvino    the engine that is faster on processors
engine           what an engine is, and all of them
===============  ===============================================================
"""
