"""What travels to the Hub: the files of a TALL's remote code, importable at home as `tall_hf.modeling`."""
