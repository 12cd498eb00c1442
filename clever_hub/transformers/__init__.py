"""CLeVER in transformers: importing this registers the classes with its Auto classes.

    import clever_hub.transformers
    from transformers import AutoModel

    model = AutoModel.from_pretrained("a model folder")

Needs ``pip install "clever-hub[transformers]"``. Model folders that carry the remote code do the
same without this package, with ``trust_remote_code=True``.
"""

from __future__ import annotations

from clever_hub.errors import require

require("torch", "transformers")
require("transformers", "transformers")

from transformers import (  # noqa: E402 -- after the check that says how to install it
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
)

import clever_hub.backends.vmamba  # noqa: E402, F401 -- lets timm build what a folder may have
from clever_hub.transformers.configuration_clever import CleverConfig  # noqa: E402
from clever_hub.transformers.image_processing_clever import CleverImageProcessor  # noqa: E402
from clever_hub.transformers.modeling_clever import (  # noqa: E402
    CleverForImageClassification,
    CleverModel,
    CleverModelOutput,
)

AutoConfig.register("clever", CleverConfig, exist_ok=True)
AutoModel.register(CleverConfig, CleverModel, exist_ok=True)
AutoModelForImageClassification.register(CleverConfig, CleverForImageClassification, exist_ok=True)
AutoImageProcessor.register(
    CleverConfig,
    # It is Pillow's whatever is asked for: torchvision resizes to other numbers.
    image_processor_classes={"pil": CleverImageProcessor, "torchvision": CleverImageProcessor},
    exist_ok=True,
)
# What is saved carries its code, and loads with trust_remote_code where this package is missing.
CleverConfig.register_for_auto_class()
CleverImageProcessor.register_for_auto_class()
CleverModel.register_for_auto_class("AutoModel")
CleverForImageClassification.register_for_auto_class("AutoModelForImageClassification")

__all__ = [
    "CleverConfig",
    "CleverForImageClassification",
    "CleverImageProcessor",
    "CleverModel",
    "CleverModelOutput",
]
