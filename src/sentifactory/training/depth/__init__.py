"""How deep a task needs to go into a model: linear probes of its layers."""
