"""How a head is trained: the numbers of a resolved configuration.

>>> FitConfig(epochs=1, batch_size=8, learning_rate=0.003, weight_decay=0.01, seed=0).accumulation
1
"""

from __future__ import annotations

from dataclasses import dataclass

from bend_hf.config import RunConfig, Schedule
from bend_hf.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a head is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    accumulation: int = 1
    patience: int | None = None
    checkpoint_every: int = 200

    @classmethod
    def of(cls, config: RunConfig) -> FitConfig:
        """The numbers of a resolved configuration.

        Raises:
            ConfigError: One is missing; the task declares no training.
        """
        epochs, batch_size, learning_rate = config.epochs, config.batch_size, config.learning_rate
        if epochs is None or batch_size is None or learning_rate is None or config.weight_decay is None:
            raise ConfigError(f"{config.task} declares no training; give epochs, batch size and learning rate")
        return cls(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
            schedule=config.schedule,
            warmup_steps=config.warmup_steps,
            accumulation=config.gradient_accumulation,
            patience=config.patience,
            checkpoint_every=config.checkpoint_every,
        )
