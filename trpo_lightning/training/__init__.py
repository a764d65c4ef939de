"""The LightningModule, its data step, callbacks, checkpoints and tracking."""
