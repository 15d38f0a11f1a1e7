"""PettingZoo: environments for two agents and more as tasks, with their observations and actions as text."""

from tasks.pettingzoo.task import PettingZoo

__all__ = ["PettingZoo"]
