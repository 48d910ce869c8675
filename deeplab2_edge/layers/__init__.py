"""Building blocks of the networks: functions that extend a functional Keras graph.

Every function takes a Keras tensor and the checkpoint path of the part it builds,
and gives each layer that path as its name. A variable's checkpoint key is therefore
`<layer name>/<variable name>`: published checkpoints need no translation table, and
graphs made of plain layers can be annotated for quantization.
"""
