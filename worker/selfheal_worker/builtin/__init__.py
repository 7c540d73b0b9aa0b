"""The embedded default model: a small linear model, pure Python, with nothing to download.

Its design, training data and accuracy: MODEL_CARD.md in this folder.
"""
