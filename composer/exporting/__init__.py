"""Models in other forms: ONNX, OpenVINO, CTranslate2, each verified against the model it comes from."""
