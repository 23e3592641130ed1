"""An encoder-decoder on ``torch.nn.Transformer``, trained from scratch: words in, words out."""
