"""Fine-tuning an encoder on one or many intermediate tasks."""
