"""How weights learn: blocks by themselves, whole models, and all configurations as one network."""
