"""batuta: trustworthy model files, and model requests that stay private and within budget."""

__version__ = "0.1.0"
