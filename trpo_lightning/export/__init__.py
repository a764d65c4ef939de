"""A trained policy as a folder that travels: weights, normalizer, config, ONNX, and a card with scores and curve."""
