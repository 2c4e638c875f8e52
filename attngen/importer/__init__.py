"""A model's Hugging Face config to a Spec, with notes on how its numbers were read."""

from attngen.importer.convert import Imported, import_config, load_config
from attngen.importer.families import SUPPORTED

__all__ = ["SUPPORTED", "Imported", "import_config", "load_config"]
