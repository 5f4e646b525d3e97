"""The measurements, one module per family of figures."""
