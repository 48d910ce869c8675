"""Names of the entries in prediction and target dictionaries.

The names are those of the published system, so saved predictions and checkpoints
keep their meaning.
"""

# Network inputs.
IMAGE = "image"
NEXT_IMAGE = "next_image"
PREVIOUS_IMAGE = "previous_image"
PREVIOUS_HEATMAP = "previous_heatmap"

# What a network of two frames gives with one frame and takes with the next one: the
# prefixes are followed by the name of an endpoint of the encoder.
FEATURES = "features_"
PREVIOUS_FEATURES = "previous_features_"

# Raw heads of the network.
SEMANTIC_LOGITS = "semantic_logits"
CENTER_HEATMAP = "center_heatmap"
OFFSET_MAP = "offset_map"
FRAME_OFFSET_MAP = "frame_offset_map"
NEXT_OFFSET_MAP = "next_offset_map"
DEPTH_PRED = "depth_pred"
PIXEL_SPACE_NORMALIZED_FEATURE = "pixel_space_normalized_feature"
PIXEL_SPACE_MASK_LOGITS = "pixel_space_mask_logits"
TRANSFORMER_CLASS_LOGITS = "transformer_class_logits"
# Further mask heads on the way, a sequence of dictionaries; only training reads them.
AUXILIARY_OUTPUTS = "auxiliary_outputs"

# What follows the network.
SEMANTIC_PRED = "semantic_pred"
INSTANCE_PRED = "instance_pred"
PANOPTIC_PRED = "panoptic_pred"
INSTANCE_SCORES = "instance_scores"
SEMANTIC_PROBS = "semantic_probs"
SEMANTIC_SCORES = "semantic_scores"
INSTANCE_CENTER_PRED = "instance_center_pred"
# Beside the published names: centers as a list, and the class of each pixel's mask.
INSTANCE_CENTERS = "instance_centers"
INSTANCE_CENTER_SCORES = "instance_center_scores"
MASK_SEMANTIC_PRED = "mask_semantic_pred"
NEXT_PANOPTIC_PRED = "next_panoptic_pred"
CONCAT_NEXT_PANOPTIC_PRED = "concat_next_panoptic_pred"

# Training targets.
SEMANTIC_GT = "semantic_gt"
SEMANTIC_LOSS_WEIGHT = "semantic_loss_weight"
IS_CROWD_GT = "is_crowd_gt"
PANOPTIC_GT = "panoptic_gt"
INSTANCE_CENTER_GT = "instance_center_gt"
CENTER_LOSS_WEIGHT = "center_loss_weight"
INSTANCE_REGRESSION_GT = "instance_regression_gt"
REGRESSION_LOSS_WEIGHT = "regression_loss_weight"
FRAME_OFFSET_GT = "frame_offset_gt"
FRAME_REGRESSION_LOSS_WEIGHT = "frame_regression_loss_weight"
NEXT_INSTANCE_REGRESSION_GT = "next_instance_regression_gt"
NEXT_REGRESSION_LOSS_WEIGHT = "next_regression_loss_weight"
DEPTH_GT = "depth_gt"
THING_ID_MASK_GT = "thing_id_mask_gt"
THING_ID_CLASS_GT = "thing_id_class_gt"

# Evaluation extras.
IMAGE_NAME = "image_name"
SIZE_RAW = "size_raw"
RESIZED_IMAGE = "resized_image"
PANOPTIC_RAW = "panoptic_raw"
SEMANTIC_RAW = "semantic_raw"
IS_CROWD_RAW = "is_crowd_raw"
NEXT_PANOPTIC_RAW = "next_panoptic_raw"
DEPTH_RAW = "depth_raw"
SEQUENCE_ID = "sequence_id"
FRAME_ID = "frame_id"
