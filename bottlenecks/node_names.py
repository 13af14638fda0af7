"""The frozen network's tensors, named as in the graph that retrain.py downloaded."""

INPUT_NODE = "Mul"  # (n, 299, 299, 3) float32 in [-1, 1]
BOTTLENECK_NODE = "pool_3/_reshape"  # (n, 2048) float32
NETWORK_SCOPE = "inception_v3"  # of all other nodes
