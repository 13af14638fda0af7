"""The exported graph's names: the contract between `retrain.export.frozen_graph` and its readers.

They are those of the graphs that retrain.py wrote, so that its users' programs find them; but for
the labels, by which `retrain.engines` notices a label file that belongs to another graph.
"""

from bottlenecks.network.names import BOTTLENECK_NODE, INPUT_NODE, NETWORK_SCOPE

CONTENTS_NODE = "DecodeJpeg/contents"  # () string: the bytes of an image file
PLACEHOLDER_NODE = "Placeholder"  # (n, 299, 299, 3) float32 in [0, 1], as with TF Hub
MUL_NODE = INPUT_NODE  # (n, 299, 299, 3) float32 in [-1, 1], as with Inception of 2015
LOGITS_NODE = "final_training_ops/Wx_plus_b/add"  # (n, C) float32
FINAL_NODE = "final_result"  # (n, C) float32, rows sum to 1; the default name
# Constants that nothing uses:
LABELS_NODE = "retrain/labels"  # (C,) string: the labels in UTF-8
ABOUT_NODE = "retrain/about"  # () string: what made it, JSON
PREPROCESS_SCOPE = "preprocess"

# Of a SavedModel, as retrain.py's had them:
IMAGE, PREDICTION = "image", "prediction"  # of the signature serving_default
# and its other signature, the scope of whose nodes has the same name:
CLASSIFY_BYTES = "classify_bytes"
IMAGES, LABELS, SCORES = "images", "labels", "scores"
SAVED_MODEL_FILE = "saved_model.pb"
# Near the start of every SavedModel that `retrain` has written, and of no other.
SAVED_MODEL_MARKER = "a classifier of retrain"

TAKEN_SCOPES = frozenset(
    name.split("/")[0].lower()
    for name in (
        *(CONTENTS_NODE, PLACEHOLDER_NODE, MUL_NODE, BOTTLENECK_NODE, LOGITS_NODE),
        *(LABELS_NODE, ABOUT_NODE, PREPROCESS_SCOPE, CLASSIFY_BYTES, NETWORK_SCOPE),
    )
)
