"""Rows computed by the machines of a Ray cluster.

The modules, in the order in which data flows (each imports only from those before it):

==========  ==============================================================
connection  an address -> Ray, quietly, or one line that says why not
carried     the network on its way to other machines, checked by its hash
worker      what a machine does: reads, decodes, computes, commits
nodes       the machines of a cluster, and a worker or more on each
crew        hands out the work, and again what was lost
==========  ==============================================================
"""
