"""The stages of a run whose refiner is the default, IRNet."""

from vwl.config.recipe import Recipe
from vwl.workflow import stages

STAGES = {name: stages.STAGES[name] for name in stages.stages_of(Recipe())}
