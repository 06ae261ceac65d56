"""What plugins register and users pick by name: hooks, registry, declared options."""
