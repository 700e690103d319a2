"""LastTokenCollator on rows written by hand."""
