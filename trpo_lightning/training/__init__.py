"""The LightningModule, its data step and callbacks, metrics, and the policies and failed updates it saves."""
