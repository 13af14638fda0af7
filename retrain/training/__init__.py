"""The images of each set -> a trained softmax layer.

The modules, in the order in which data flows (each imports only from those before it):

==============  ==================================================================
settings        how the layer is trained: the flags
optimizers      how gradients move parameters: averaged Adam, gradient descent
batches         which rows a step is taken on
head            the softmax layer: a step, predict
regularisation  how strong the penalty is to be
fitting         the steps of a fit: which is kept, early stopping, calibration
==============  ==================================================================
"""
