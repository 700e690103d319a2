"""Training a TALL: the adapters, what may be pretrained or added before, and what follows the losses."""
