"""What a user's recipe imports: `Dataset`, `features`, `recipe`. Importing it is light."""

from interlock.training.dataset import Dataset, Rows
from interlock.training.recipe import features, recipe

__all__ = ["Dataset", "Rows", "features", "recipe"]
