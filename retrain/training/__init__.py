"""The images of each set -> a trained softmax layer, alone or with layers below it.

The modules, in the order in which data flows (each imports only from those before it):

==============  ==================================================================
recipes         what tells one way of training layers from another
settings        how layers are trained: the flags
optimizers      how gradients move parameters: averaged Adam, gradient descent
batches         which rows a step is taken on
head            the softmax layer: a step, predict
regularisation  how strong the penalty is to be
fitting         the loop of any training: which step is kept, early stopping, calibration
devices         where fine-tuning runs: one device, several, several machines
upper           the layers above a cut and the head, as a network and as variables
fine_tuning     a step of training them, on rows of the cut
checkpoint      how far a killed fine-tuning was
tuned           fine-tune, and judge whether it is better than the head alone
==============  ==================================================================
"""
