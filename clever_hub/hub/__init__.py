"""From a name to a model folder: shipped models, the Hugging Face Hub, its cache."""
