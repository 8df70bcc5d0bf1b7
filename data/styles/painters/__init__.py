"""The painters of the style pictures, one module each, over a shared toolbox."""
