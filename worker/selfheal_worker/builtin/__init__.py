"""The embedded default model: a small linear model, pure Python, with nothing to download.

What it is, what it was trained on and how well it does: MODEL_CARD.md in this folder.
"""
