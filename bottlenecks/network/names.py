"""What the frozen network's tensors and settings are called."""

import re

# As in the graph that retrain.py downloaded.
INPUT_NODE = "Mul"  # (n, 299, 299, 3) float32 in [-1, 1]
BOTTLENECK_NODE = "pool_3/_reshape"  # (n, 2048) float32
NETWORK_SCOPE = "inception_v3"  # of all other nodes

ARCHITECTURE = "inception_v3"
TEMPLATE = "graph"  # of what an exported graph has around the network
# What `kept` calls a frozen network and a template, and Keras its weights.
NETWORK_FILE = re.compile(
    r"(inception_v3|graph)-[0-9a-f]{12}-[0-9a-f]{64}\.pb|inception_v3_weights_\w+\.h5"
)
IMAGENET, RANDOM = "imagenet", "random"  # weights that are no file of the user's
PRECISIONS = ("float32", "bfloat16", "int8")
ENGINES = ("tensorflow", "openvino")
AUTO = "auto"  # the fastest that there is
