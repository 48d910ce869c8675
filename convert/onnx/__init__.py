"""From a traced network to an ONNX file made of standard ops only."""
