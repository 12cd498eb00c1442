"""Pre-training with CLeVER: recipes, views, objectives, the loop, and measuring.

Installed by ``pip install "clever-hub[train]"``.
"""

from __future__ import annotations
