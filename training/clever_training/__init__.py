"""Pre-training with CLeVER: recipes, views, objectives and the loop (``pip install "clever-hub[train]"``)."""

from __future__ import annotations
