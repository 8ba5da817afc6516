"""Entry points. Composition only: they build the parts and hand them to each other."""
