"""TALL for Hugging Face."""
