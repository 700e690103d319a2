"""What travels to the Hub with a model: flat files that import torch and transformers only, never tall_hf."""
