"""Components, which plugins register and users choose by name: hooks, registry and declared options."""
