"""The frozen network -> rows of pixels: what runs it, and in how many bits.

The modules, in the order in which data flows (each imports only from those before it):

==============  ================================================================
devices         the GPUs of a machine, and a batch that is shared out among several
bfloat16        the frozen network in half the bits
openvino_graph  a frozen graph -> an OpenVINO model of the same arithmetic
openvino_run    such a model on this machine's processor
==============  ================================================================
"""
