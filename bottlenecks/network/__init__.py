"""Weights -> the frozen network, and what runs it.

The modules, in the order in which data flows (each imports only from those before it):

==========  ==============================================================
names       what the frozen network's tensors and settings are called
cuts        where the network can be cut: its layers by name
messages    TensorFlow's protocol buffers, without TensorFlow
tensorflow  the one place where TensorFlow is imported
operations  what each operation of the frozen network does
frozen      run a frozen graph in little memory
weights     imagenet, random or a file -> checked weights
kept        frozen networks on the disk, under the hash of their bytes
layers      the two parts of a network that is cut
engines/    what runs the frozen network, and in how many bits
inception   weights -> frozen InceptionV3: pixels -> rows; its fingerprint
summary     what InceptionV3 is made of, and what its 1x1 convolutions save
==========  ==============================================================
"""
